//! Replays a log through the model with the answers that were given.

use std::collections::{BTreeMap, VecDeque};

use confab_protocol::ids::Seq;

use super::command::{ModelAction, ModelCommand, Who};
use super::concurrent::{AnsweredCommand, is_alike};
use super::state::{Conversation, ModelAnswer};

/// An event as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StoredEvent {
    pub(super) seq: Seq,
    pub(super) r#type: String,
    pub(super) actor: String,
}

/// What the conversation has become. `queues` are what each user asked for here, in its order.
pub(super) fn replay(
    begun: Conversation,
    rows: &[StoredEvent],
    mut queues: BTreeMap<Who, VecDeque<&AnsweredCommand>>,
) -> Conversation {
    let name = begun.name.clone();
    assert_eq!(rows.first(), Some(&row(&begun, 1)), "{name}");
    let mut states = vec![begun];
    let mut silent = Vec::new();
    loop {
        let state = states.last().unwrap();
        let head = usize::try_from(state.head()).unwrap();
        let Some(next) = rows.get(head) else { break };
        let queue = queues.iter_mut().find(|(who, _)| **who == next.actor);
        let (_, queue) = queue.unwrap_or_else(|| panic!("nobody did {next:?} in {name}"));
        let mut others = Vec::new();
        let after = loop {
            let told = queue.pop_front();
            let told = told
                .unwrap_or_else(|| panic!("{name}: {next:?} was granted to none of {others:?}"));
            match granted(state, told) {
                Some((after, due)) if does(rows, state, (&after, &due), told) => break after,
                // What would change something here may have changed nothing before.
                due => {
                    others.push((told, due.map(|(_, due)| due)));
                    silent.push(told);
                }
            }
        };
        states.push(after);
    }
    silent.extend(queues.into_values().flatten());
    for told in silent {
        assert_explained(&states, told);
    }
    states.pop().unwrap()
}

/// Whether what was told is what is due behind a state, appended what stands there in the log, and was told behind it.
fn does(
    rows: &[StoredEvent],
    state: &Conversation,
    (after, due): (&Conversation, &ModelAnswer),
    told: &AnsweredCommand,
) -> bool {
    let head = usize::try_from(state.head()).unwrap();
    let appended = (state.head() + 1..=after.head()).map(|seq| row(after, seq));
    let appended: Vec<StoredEvent> = appended.collect();
    let stored = rows.get(head..head + appended.len());
    is_alike(&told.answer, due) && stored == Some(&appended[..]) && told.to >= after.head()
}

fn row(conversation: &Conversation, seq: Seq) -> StoredEvent {
    let event = &conversation.log[usize::try_from(seq).unwrap() - 1];
    StoredEvent {
        seq,
        r#type: event.r#type.to_owned(),
        actor: event.actor.to_owned(),
    }
}

/// What becomes of a conversation by something that was granted; none where that appends nothing.
fn granted(state: &Conversation, told: &AnsweredCommand) -> Option<(Conversation, ModelAnswer)> {
    let ModelCommand::In(_, action) = &told.command else {
        return None;
    };
    if told.answer.status >= 300 || told.answer.replayed {
        return None;
    }
    let mut after = state.clone();
    let due = after.apply(told.who, action);
    (after.head() > state.head()).then_some((after, due))
}

/// Asserts that what appended nothing was answered so by one of the states between asking and hearing.
fn assert_explained(states: &[Conversation], told: &AnsweredCommand) {
    let ModelCommand::In(_, action) = &told.command else {
        return;
    };
    let first = states.partition_point(|state| state.head() <= told.from) - 1;
    let behind = states.partition_point(|state| state.head() <= told.to);
    let possible = &states[first..behind];
    let explains = |state: &Conversation| {
        let mut after = state.clone();
        let due = after.apply(told.who, action);
        let is_silent = after.head() == state.head();
        is_silent && (is_alike(&told.answer, &due) || is_mark(&told.answer, &due, action, state))
    };
    let dues = || {
        let dues = possible.iter();
        let dues = dues.map(|state| (state.head(), state.clone().apply(told.who, action)));
        dues.collect::<Vec<_>>()
    };
    let name = &states[0].name;
    assert!(
        possible.iter().any(explains),
        "{name}: {told:?} is none of {:?}",
        dues()
    );
}

/// Where a mark stands depends on those before it: it is never below what was asked for, and never above the head.
fn is_mark(
    answer: &ModelAnswer,
    due: &ModelAnswer,
    action: &ModelAction,
    state: &Conversation,
) -> bool {
    let (ModelAction::Read { .. }, 200, 200) = (action, answer.status, due.status) else {
        return false;
    };
    let mark = |answer: &ModelAnswer| {
        answer.body["read"][&state.name]
            .as_u64()
            .unwrap_or_default()
    };
    (mark(due)..=state.head()).contains(&mark(answer))
}
