//! What the bot and operators say.

use bowline_proto::keeper::Input;
use bowline_store::Stage;
use tokio::sync::mpsc::OwnedPermit;

use super::{
    super::{
        Order,
        outbound::{self, Unsent},
    },
    Phase, Shell,
};
use crate::{
    bot::Said,
    far::{Command, Outgoing},
};

impl Shell {
    pub(super) fn on_said(&mut self, said: Said) {
        match said {
            Said::Send { outgoing, done } => self.say(outgoing, done),
            Said::Fetched { id } => self.step(id, Stage::Fetched, String::new()),
            Said::Replied { id } => {
                self.drive(Input::Handled);
                if let Some(id) = id {
                    self.step(id, Stage::Replied, String::new());
                }
            }
        }
    }

    pub(super) fn say(&mut self, outgoing: Outgoing, done: outbound::Done) {
        self.drive(Input::Sending);
        if let Some(unsent) = self.outbound.send(self.now(), outgoing, Some(done)) {
            self.not_sent(unsent);
        }
    }

    /// Something of the bot does not go out, and nobody there was told.
    pub(super) fn not_sent(&mut self, Unsent { reply_to, words }: Unsent) {
        self.reporter.trouble(format!("what the bot said was not sent: {words}"));
        if let Some(id) = reply_to {
            self.step(id, Stage::Replied, format!("not sent: {words}"));
        }
    }

    pub(super) fn on_order(&mut self, order: Order) {
        if self.stage != Phase::Running {
            order.refuse("the link is being stopped");
            return;
        }
        match order {
            Order::Probe(answer) => {
                self.reporter.await_probe(answer);
                self.drive(Input::Probe);
            }
            Order::Renew(answer) => {
                self.reporter.await_renewal(self.current.is_some(), answer);
                self.drive(Input::Renew);
            }
            Order::Send(outgoing, answer) => self.say(outgoing, answer),
            Order::Reload => {
                self.reload = true;
                self.look_at = self.now();
            }
        }
    }

    pub(super) fn send_one(&mut self, permit: OwnedPermit<Command>) {
        let Some(current) = self.current else { return };
        if let Some(told) = self.outbound.next(self.now(), current) {
            permit.send(told.command);
            if let Some(id) = told.replied {
                self.step(id, Stage::Replied, String::new());
            }
        }
    }

    /// Only now: a kill before this offers the message again, instead of losing what was said.
    pub(super) fn on_written(&mut self, id: String) {
        if self.outbound.written(&id) {
            self.step(id, Stage::Confirmed, String::new());
        }
    }
}
