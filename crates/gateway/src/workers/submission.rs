//! Commands on their way to a worker, who waits for them, and what a worker's answer means for them. No IO.

use std::sync::Arc;
use std::time::Instant;

use confab_bus::rpc::WorkerId;
use confab_protocol::command::{Command, Request};
use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;
use confab_protocol::ids::ConversationId;
use tokio::sync::oneshot;

use super::CommandOutcome;

/// Attempts for each command: the first, and one more at another worker.
pub(super) const MAX_ATTEMPTS: u32 = 2;

/// What waits and travels by itself, so that nothing waits for commands of another class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Messages are sent: group-committed, fast, and most of what there is.
    Sends,
    /// Read marks: group-committed by themselves. One may wait for a membership that is locked.
    Marks,
    /// Everything else: each is carried out by itself and may take long.
    Others,
}

impl Class {
    pub(super) const ALL_CLASSES: [Self; 3] = [Self::Sends, Self::Marks, Self::Others];

    fn of(requests: &[Request]) -> Self {
        let all = |is: fn(&Command) -> bool| requests.iter().all(|request| is(&request.command));
        if all(|command| matches!(command, Command::SendMessage(_))) {
            Self::Sends
        } else if all(|command| matches!(command, Command::MarkRead(_))) {
            Self::Marks
        } else {
            Self::Others
        }
    }
}

/// Commands that stay together and in order, and who waits for their outcomes.
#[derive(Debug)]
pub(super) struct Submission {
    requests: Vec<Arc<Request>>,
    /// What workers answered, by command.
    outcomes: Vec<Option<CommandOutcome>>,
    pub(super) deadline: Instant,
    pub(super) attempts: u32,
    /// Whether a worker may have them from an earlier attempt.
    pub(super) handed_over: bool,
    /// Until when a worker that was given up may still carry them out; none where that was over when the last attempt began.
    pub(super) open_until: Option<Instant>,
    /// The workers that failed it.
    pub(super) not: Vec<WorkerId>,
    pub(super) weight: usize,
    owner: Owner,
    class: Class,
    answers: oneshot::Sender<Vec<CommandOutcome>>,
}

impl Submission {
    /// Commands of one caller.
    pub(super) fn new(
        owner: Owner,
        requests: Vec<Request>,
        deadline: Instant,
        answers: oneshot::Sender<Vec<CommandOutcome>>,
    ) -> Self {
        let weight = requests.iter().map(|request| request.weight()).sum();
        Self {
            owner,
            class: Class::of(&requests),
            outcomes: vec![None; requests.len()],
            requests: requests.into_iter().map(Arc::new).collect(),
            deadline,
            attempts: 0,
            handed_over: false,
            open_until: None,
            not: Vec::new(),
            weight,
            answers,
        }
    }

    pub(super) const fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(super) const fn class(&self) -> Class {
        self.class
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

    /// The commands that have no outcome, with their indexes, in their order.
    pub(super) fn open(&self) -> impl Iterator<Item = (usize, &Arc<Request>)> {
        let requests = self.requests.iter().zip(&self.outcomes).enumerate();
        requests.filter_map(|(n, (request, outcome))| outcome.is_none().then_some((n, request)))
    }

    /// How many commands have no outcome.
    pub(super) fn count(&self) -> usize {
        self.open().count()
    }

    /// Keeps a command's outcome. The first one counts.
    pub(super) fn keep(&mut self, index: usize, outcome: CommandOutcome) {
        if let Some(kept) = self.outcomes.get_mut(index) {
            kept.get_or_insert(outcome);
        }
    }

    /// Whether the worker did none of it and said so, and another may be asked. What was done in part is not begun
    /// again: the rest would overtake what was done.
    pub(super) fn may_go_elsewhere(&self) -> bool {
        let is_undone = |outcome: &Option<CommandOutcome>| matches!(outcome, Some(Err(failure)) if is_undone(failure));
        self.attempts < MAX_ATTEMPTS && self.outcomes.iter().all(is_undone)
    }

    /// An attempt begins: what it refuses counts where no worker that was given up may carry it out any more.
    pub(super) fn begin_attempt(&mut self, now: Instant) {
        self.attempts += 1;
        self.open_until = self.open_until.filter(|until| *until > now);
    }

    /// Until when a refusal is not final: an earlier worker that was abandoned may still execute the command.
    pub(super) fn in_doubt_until(&self) -> Option<Instant> {
        let is_refused = self.outcomes.iter().flatten().any(is_definite_refusal);
        self.open_until.filter(|_| is_refused)
    }

    /// Takes back what was refused while it was in doubt: one more attempt finds out, for nobody else carries it out any more. What stands
    /// before something that was done would come behind that, and ends as unknown.
    pub(super) fn take_back_refusals(&mut self) {
        self.open_until = None;
        self.attempts = MAX_ATTEMPTS - 1;
        let is_done = |outcome: &Option<CommandOutcome>| matches!(outcome, Some(Ok(_)));
        let last_done = self.outcomes.iter().rposition(is_done);
        for (n, outcome) in self.outcomes.iter_mut().enumerate() {
            if outcome.as_ref().is_some_and(is_definite_refusal) {
                let is_before = last_done.is_some_and(|last| n < last);
                *outcome = is_before.then(|| Err(Failure::of(Code::Timeout)));
            }
        }
    }

    /// Gives every command that has no outcome the same one.
    pub(super) fn fail(&mut self, failure: &Failure) {
        for outcome in &mut self.outcomes {
            outcome.get_or_insert_with(|| Err(failure.clone()));
        }
    }

    /// Forgets what a worker answered, for another to be asked.
    pub(super) fn begin_again(&mut self) {
        self.outcomes.fill(None);
    }

    /// Answers with an outcome a command. A caller that left needs none.
    pub(super) fn answer(self) {
        // None is without one here.
        self.refuse(&Failure::of(Code::Timeout));
    }

    /// Answers, with the same refusal for every command that has no outcome.
    pub(super) fn refuse(mut self, failure: &Failure) {
        let outcomes = std::mem::take(&mut self.outcomes).into_iter();
        let outcomes = outcomes.map(|outcome| match outcome {
            // That one attempt did nothing does not say what another did, or still does.
            Some(Err(refusal)) if self.handed_over && says_nothing(&refusal) => {
                Err(Failure::of(Code::Timeout))
            }
            Some(outcome) => outcome,
            None => Err(failure.clone()),
        });
        drop(self.answers.send(outcomes.collect()));
    }
}

/// Whether a worker's refusal says that it has done nothing, and that another may do it.
pub(super) const fn is_undone(failure: &Failure) -> bool {
    matches!(failure.code, Code::Overloaded | Code::Unavailable)
}

/// Whether it is a refusal that is told as such, whatever became of earlier attempts.
fn is_definite_refusal(outcome: &CommandOutcome) -> bool {
    let refusal = outcome.as_ref().err();
    refusal.is_some_and(|refusal| !says_nothing(refusal) && refusal.code != Code::Timeout)
}

/// Whether a refusal by one attempt does not say what an earlier one did.
fn says_nothing(refusal: &Failure) -> bool {
    is_undone(refusal) || refusal.code == Code::IdempotencyInProgress
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use confab_protocol::command::{Caller, Outcome, SendAnswer, SendMessage};
    use confab_protocol::ids::ClientId;
    use confab_protocol::json::JsonText;
    use uuid::Uuid;

    use super::*;

    /// So many sends of so many bytes.
    pub(in crate::workers) fn submission(
        count: usize,
        bytes: usize,
        deadline: Instant,
    ) -> (Submission, oneshot::Receiver<Vec<CommandOutcome>>) {
        let send = Command::SendMessage(SendMessage {
            conversation: ConversationId(Uuid::nil()),
            message: confab_protocol::ids::EventId(Uuid::nil()),
            client_id: ClientId(Uuid::nil()),
            payload: JsonText::trusted("x".repeat(bytes)),
            reply_to: None,
            answer: SendAnswer::Ack,
        });
        submitted("t", "u", vec![send; count], deadline)
    }

    /// Commands of a user.
    pub(in crate::workers) fn submitted(
        tenant: &str,
        user: &str,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> (Submission, oneshot::Receiver<Vec<CommandOutcome>>) {
        let caller = Caller {
            tenant: tenant.parse().unwrap(),
            user: user.parse().unwrap(),
            admin: false,
        };
        let request = |command| Request {
            request_id: String::new(),
            traceparent: None,
            caller: caller.clone(),
            event: None,
            command,
        };
        let requests = commands.into_iter().map(request).collect();
        let (answers, outcomes) = oneshot::channel();
        let submission = Submission::new(Owner::from(&caller), requests, deadline, answers);
        (submission, outcomes)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn answered(count: usize, outcomes: &[CommandOutcome]) -> Submission {
        let (mut sends, _outcomes) = submission(count, 10, later());
        sends.attempts = 1;
        for (n, outcome) in outcomes.iter().enumerate() {
            sends.keep(n, outcome.clone());
        }
        sends
    }

    #[test]
    fn undone_commands_go_elsewhere_once() {
        let refused = |code| Err(Failure::of(code));
        let done = || Ok(Outcome::Read(Vec::new()));
        let undone = [refused(Code::Overloaded), refused(Code::Unavailable)];
        let mut sends = answered(2, &undone);
        assert!(sends.may_go_elsewhere());
        for decided in [
            [done(), done()],
            [done(), refused(Code::Overloaded)],
            [refused(Code::Unavailable), refused(Code::Timeout)],
            [
                refused(Code::ConversationNotFound),
                refused(Code::Overloaded),
            ],
        ] {
            assert!(!answered(2, &decided).may_go_elsewhere(), "{decided:?}");
        }
        assert!(!answered(3, &undone).may_go_elsewhere());
        sends.attempts = MAX_ATTEMPTS;
        assert!(!sends.may_go_elsewhere());
    }

    #[test]
    fn second_attempt_has_only_commands_without_outcome() {
        let sends = answered(3, &[Ok(Outcome::Read(Vec::new()))]);
        let open: Vec<_> = sends.open().map(|(n, _)| n).collect();
        assert_eq!((open, sends.count()), (vec![1, 2], 2));
    }

    #[test]
    fn refusal_is_in_doubt_after_abandoned_attempt() {
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        let refused = |code| Err(Failure::of(code));
        let done = Ok(Outcome::Read(Vec::new()));
        for (outcome, in_doubt) in [
            (done, None),
            (refused(Code::ConversationNotFound), Some(until)),
            (refused(Code::Timeout), None),
            (refused(Code::Overloaded), None),
        ] {
            let mut sends = answered(2, &[outcome]);
            sends.fail(&Failure::of(Code::Timeout));
            assert_eq!(sends.in_doubt_until(), None, "nobody was given up");
            sends.open_until = Some(until);
            assert_eq!(sends.in_doubt_until(), in_doubt);
            sends.begin_attempt(until - Duration::from_millis(1));
            assert_eq!(sends.in_doubt_until(), in_doubt);
            sends.begin_attempt(until);
            assert_eq!(sends.in_doubt_until(), None, "it was over before");
        }
    }

    #[test]
    fn doubtful_refusal_is_settled_by_another_attempt() {
        let refused = || Err(Failure::of(Code::ConversationNotFound));
        let done = || Ok(Outcome::Read(Vec::new()));
        for (outcomes, open) in [
            (vec![refused(), refused()], 2),
            (vec![refused(), Err(Failure::of(Code::Timeout))], 1),
            (vec![done(), refused()], 1),
            (vec![refused(), done()], 0),
        ] {
            let count = outcomes.len();
            let (mut sends, mut told) = submission(count, 10, later());
            sends.attempts = MAX_ATTEMPTS;
            sends.handed_over = true;
            sends.open_until = Some(later());
            for (n, outcome) in outcomes.into_iter().enumerate() {
                sends.keep(n, outcome);
            }
            sends.take_back_refusals();
            assert_eq!(sends.count(), open);
            sends.begin_attempt(Instant::now());
            assert_eq!(
                (sends.attempts, sends.in_doubt_until()),
                (MAX_ATTEMPTS, None)
            );
            sends.answer();
            let told = told.try_recv().unwrap();
            let refused = told.iter().find_map(|outcome| outcome.as_ref().err());
            let code = refused.map(|refused| refused.code);
            assert_eq!(code, Some(Code::Timeout), "it may have been done since");
        }
    }

    #[test]
    fn possible_success_is_not_told_as_failure() {
        for (code, told) in [
            (Code::Unavailable, Code::Timeout),
            (Code::IdempotencyInProgress, Code::Timeout),
            (Code::LastAdmin, Code::LastAdmin),
        ] {
            for handed_over in [false, true] {
                let (mut sends, mut outcomes) = submission(2, 10, later());
                sends.handed_over = handed_over;
                sends.keep(0, Ok(Outcome::Read(Vec::new())));
                sends.keep(1, Err(Failure::of(code)));
                sends.answer();
                let outcomes = outcomes.try_recv().unwrap();
                assert!(outcomes[0].is_ok());
                let told = if handed_over { told } else { code };
                assert_eq!(outcomes[1].as_ref().unwrap_err().code, told);
            }
        }
    }
}
