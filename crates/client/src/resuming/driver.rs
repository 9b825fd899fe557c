use std::collections::BTreeMap;
use std::sync::Arc;

use confab_protocol::frame::ClientFrame;
use confab_protocol::ids::{ConversationId, Seq};
use tokio::sync::{mpsc, watch};

use super::sends::Kept;
use super::{Change, Counts, ResumeError, ResumeOptions, Standing};
use crate::session::Answer;

/// What the program asks of the driver.
#[derive(Debug)]
pub(super) enum Command {
    Keep(Kept),
    Renew { token: String, answer: Answer },
    Say(ClientFrame),
    Seen(BTreeMap<ConversationId, Seq>),
    Bye,
}

pub(super) struct Driver {
    commands: mpsc::Receiver<Command>,
}

impl Driver {
    pub(super) async fn open(
        options: ResumeOptions,
        commands: mpsc::Receiver<Command>,
        changes: mpsc::Sender<Change>,
        counts: Arc<Counts>,
    ) -> Result<(Self, watch::Receiver<Standing>), ResumeError> {
        let _parts = (options, changes, counts, commands);
        Err(ResumeError::NoGateway)
    }

    pub(super) async fn run(mut self) {
        while self.commands.recv().await.is_some() {}
    }
}
