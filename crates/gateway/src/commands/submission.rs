//! Commands on their way to a worker, who waits for them, and what a worker's answer means for them. No IO.

use std::time::Instant;

use confab_bus::rpc::WorkerId;
use confab_protocol::command::Request;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::ConversationId;
use tokio::sync::oneshot;

use super::CommandOutcome;

/// A command goes to workers so often: at first, and once more elsewhere.
pub(super) const ATTEMPTS: u32 = 2;

/// Commands that stay together and in order, and who waits for their outcomes.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) requests: Vec<Request>,
    pub(super) deadline: Instant,
    pub(super) attempts: u32,
    /// Whether a worker may have them from an earlier attempt.
    pub(super) handed_over: bool,
    /// The workers that failed it.
    pub(super) not: Vec<WorkerId>,
    pub(super) weight: usize,
    answers: oneshot::Sender<Vec<CommandOutcome>>,
}

impl Submission {
    pub(super) fn new(
        requests: Vec<Request>,
        deadline: Instant,
        answers: oneshot::Sender<Vec<CommandOutcome>>,
    ) -> Self {
        let weight = requests.iter().map(|request| request.weight()).sum();
        Self {
            requests,
            deadline,
            attempts: 0,
            handed_over: false,
            not: Vec::new(),
            weight,
            answers,
        }
    }

    pub(super) fn conversation(&self) -> Option<ConversationId> {
        self.requests
            .first()
            .and_then(|request| request.command.conversation())
    }

    /// The first command's request id: what spreads commands that name no conversation.
    pub(super) fn request_id(&self) -> Option<&str> {
        self.requests
            .first()
            .map(|request| request.request_id.as_str())
    }

    /// Whether the worker did none of it and said so, and another may be asked. What was done in part is not begun
    /// again: the rest would overtake what was done.
    pub(super) fn may_go_elsewhere(&self, outcomes: &[CommandOutcome]) -> bool {
        let is_undone = |outcome: &CommandOutcome| outcome.as_ref().is_err_and(is_undone);
        self.attempts < ATTEMPTS && !outcomes.is_empty() && outcomes.iter().all(is_undone)
    }

    /// Answers with an outcome a command. A caller that left needs none.
    pub(super) fn answer(self, mut outcomes: Vec<CommandOutcome>) {
        if self.handed_over {
            // That the last attempt did nothing does not say what an earlier one did, or still does.
            for failure in outcomes
                .iter_mut()
                .filter_map(|outcome| outcome.as_mut().err())
            {
                if is_undone(failure) || failure.code == Code::IdempotencyInProgress {
                    *failure = Failure::of(Code::Timeout);
                }
            }
        }
        drop(self.answers.send(outcomes));
    }

    /// Answers every command with the same refusal.
    pub(super) fn refuse(self, failure: &Failure) {
        let count = self.requests.len();
        drop(self.answers.send(vec![Err(failure.clone()); count]));
    }
}

/// Whether a worker's refusal says that it has done nothing, and that another may do it.
pub(super) const fn is_undone(failure: &Failure) -> bool {
    matches!(failure.code, Code::Overloaded | Code::Unavailable)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use confab_protocol::command::{Caller, Command, Outcome, SendAnswer, SendMessage};
    use confab_protocol::ids::ClientId;
    use confab_protocol::json::JsonText;
    use uuid::Uuid;

    use super::*;

    /// So many sends of so many bytes.
    pub(in crate::commands) fn submission(
        count: usize,
        bytes: usize,
        deadline: Instant,
    ) -> (Submission, oneshot::Receiver<Vec<CommandOutcome>>) {
        let request = Request {
            request_id: String::new(),
            traceparent: None,
            caller: Caller {
                tenant: "t".parse().unwrap(),
                user: "u".parse().unwrap(),
                admin: false,
            },
            command: Command::SendMessage(SendMessage {
                conversation: ConversationId(Uuid::nil()),
                message: confab_protocol::ids::EventId(Uuid::nil()),
                client_id: ClientId(Uuid::nil()),
                payload: JsonText::trusted("x".repeat(bytes)),
                reply_to: None,
                answer: SendAnswer::Ack,
            }),
        };
        let (answers, outcomes) = oneshot::channel();
        let submission = Submission::new(vec![request; count], deadline, answers);
        (submission, outcomes)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn what_a_worker_did_not_do_goes_elsewhere_once_and_as_a_whole() {
        let refused = |code| Err(Failure::of(code));
        let done = || Ok(Outcome::Read(Vec::new()));
        let (mut sends, _outcomes) = submission(2, 10, later());
        sends.attempts = 1;
        let undone = [refused(Code::Overloaded), refused(Code::Unavailable)];
        assert!(sends.may_go_elsewhere(&undone));
        for decided in [
            [done(), done()],
            [done(), refused(Code::Overloaded)],
            [refused(Code::Unavailable), refused(Code::Timeout)],
            [
                refused(Code::ConversationNotFound),
                refused(Code::Overloaded),
            ],
        ] {
            assert!(!sends.may_go_elsewhere(&decided), "{decided:?}");
        }
        sends.attempts = ATTEMPTS;
        assert!(!sends.may_go_elsewhere(&undone));
    }

    #[test]
    fn nobody_is_told_that_nothing_was_done_when_an_earlier_attempt_may_have_done_it() {
        for (code, told) in [
            (Code::Unavailable, Code::Timeout),
            (Code::IdempotencyInProgress, Code::Timeout),
            (Code::LastAdmin, Code::LastAdmin),
        ] {
            for handed_over in [false, true] {
                let (mut sends, mut outcomes) = submission(2, 10, later());
                sends.handed_over = handed_over;
                sends.answer(vec![Ok(Outcome::Read(Vec::new())), Err(Failure::of(code))]);
                let outcomes = outcomes.try_recv().unwrap();
                assert!(outcomes[0].is_ok());
                let told = if handed_over { told } else { code };
                assert_eq!(outcomes[1].as_ref().unwrap_err().code, told);
            }
        }
    }
}
