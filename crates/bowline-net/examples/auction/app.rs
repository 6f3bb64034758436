//! What the auction decides: who may come in, who watches what, whose bid counts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bowline_net::{
    Ack, Broadcast, Busy, ConnectRequest, Context, ErrorCode, Handle, Handler, SocketData,
    SocketRef, socketio::Args,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

/// How long an answer to "sold" may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A house and what is on sale in it. Clones are the same house.
#[derive(Clone, Default)]
pub(crate) struct Auction(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Who may come in, and for how long.
    tickets: BTreeMap<String, (String, Duration)>,
    lots: BTreeMap<String, Lot>,
}

#[derive(Default)]
struct Lot {
    bid: u64,
    bidder: Option<String>,
    photo: Option<Bytes>,
}

/// What the client passes as `auth`.
#[derive(Deserialize)]
struct Auth {
    ticket: String,
}

/// What clients may say.
enum Wish {
    Watch(String),
    Bid(String, u64),
    Photo(String, Bytes),
}

impl Handler for Auction {
    fn on_connect(&self, cx: &mut Context<'_>, request: ConnectRequest) {
        let auth = request.auth().and_then(|auth| serde_json::from_str::<Auth>(auth).ok());
        let found = auth.and_then(|auth| self.lock().tickets.get(&auth.ticket).cloned());
        let Some((name, rest)) = found else {
            return cx.refuse(request, "No ticket.", Some(r#"{"code":"no-ticket"}"#.into()));
        };
        let data = SocketData::new(&name).ok();
        let socket = cx.accept_with(request, [format!("bidder-{name}")], data);
        cx.expire(socket, rest, ErrorCode::TokenExpired);
    }

    fn on_event(&self, cx: &mut Context<'_>, socket: SocketRef, args: Args, ack: Option<Ack>) {
        let data = cx.socket(socket).and_then(|view| view.data().cloned());
        let Some(name) = data.map(|data| data.text().to_string()) else { return };
        let answer = match Wish::read(&args) {
            Some(Wish::Watch(lot)) => self.watch(cx, socket, lot),
            Some(Wish::Bid(lot, amount)) => self.bid(cx, &name, &lot, amount),
            Some(Wish::Photo(lot, photo)) => self.photo(cx, lot, photo),
            None => json!({ "error": "not understood" }),
        };
        if let Some(ack) = ack {
            cx.ack(ack, Args::from_values(&[answer]));
        }
    }
}

impl Wish {
    fn read(args: &Args) -> Option<Self> {
        let name = args.name()?;
        match &*name {
            "watch" => args.parse().ok().map(|(_, lot): (String, _)| Self::Watch(lot)),
            "bid" => args.parse().ok().map(|(_, lot, sum): (String, _, _)| Self::Bid(lot, sum)),
            "photo" => {
                let (_, lot, photo) = args.parse::<(String, String, Value)>().ok()?;
                Some(Self::Photo(lot, args.attachment(&photo)?.clone()))
            }
            _ => None,
        }
    }
}

impl Auction {
    /// Sells a ticket.
    pub(crate) fn admit(&self, ticket: &str, name: &str, rest: Duration) {
        self.lock().tickets.insert(ticket.to_owned(), (name.to_owned(), rest));
    }

    /// Puts something up for sale. Whoever comes first hears it, within an hour.
    pub(crate) async fn open(&self, handle: &Handle, lot: &str) -> Result<(), Busy> {
        self.lock().lots.insert(lot.to_owned(), Lot::default());
        let args = Args::from_values(&[json!("open"), json!(lot)]);
        handle.broadcast_held(Broadcast::new("/", args), Duration::from_secs(3600)).await?;
        Ok(())
    }

    /// Sells it, and says how many of those who watched have acknowledged that.
    pub(crate) async fn close(&self, handle: &Handle, lot: &str) -> Result<usize, Busy> {
        let Some(sold) = self.lock().lots.remove(lot) else { return Ok(0) };
        let args = Args::from_values(&[json!("sold"), json!(lot), json!(sold.bidder)]);
        let sold = Broadcast::new("/", args).to(room(lot));
        Ok(handle.broadcast_with_acks(sold, ANSWER, 10_000).await?.acks.len())
    }

    fn watch(&self, cx: &mut Context<'_>, socket: SocketRef, lot: String) -> Value {
        let state = self.lock();
        let Some(found) = state.lots.get(&lot) else { return json!({ "error": "no such lot" }) };
        cx.join(socket, room(&lot));
        if let Some(photo) = &found.photo {
            cx.emit(socket, picture(&lot, photo));
        }
        json!({ "bid": found.bid, "bidder": found.bidder })
    }

    fn bid(&self, cx: &mut Context<'_>, name: &str, lot: &str, bid: u64) -> Value {
        // Locked until the others have been told: what they hear is in the order of the bids.
        let mut state = self.lock();
        let Some(found) = state.lots.get_mut(lot) else { return json!({ "error": "no such lot" }) };
        if bid <= found.bid {
            return json!({ "error": "too low", "bid": found.bid });
        }
        found.bid = bid;
        found.bidder = Some(name.to_owned());
        let args = Args::from_values(&[json!("bid"), json!(lot), json!(bid), json!(name)]);
        cx.broadcast(Broadcast::new("/", args).to(room(lot)).except(format!("bidder-{name}")));
        json!({ "bid": bid })
    }

    fn photo(&self, cx: &mut Context<'_>, lot: String, photo: Bytes) -> Value {
        let mut state = self.lock();
        let Some(found) = state.lots.get_mut(&lot) else {
            return json!({ "error": "no such lot" });
        };
        cx.broadcast(Broadcast::new("/", picture(&lot, &photo)).to(room(&lot)));
        found.photo = Some(photo);
        json!({})
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn room(lot: &str) -> String {
    format!("lot-{lot}")
}

fn picture(lot: &str, photo: &Bytes) -> Args {
    let json = json!(["photo", lot, Args::placeholder(0)]).to_string();
    let args = Args::with_attachments(json, vec![photo.clone()]);
    args.unwrap_or_else(|_| Args::from_values(&[json!("photo"), json!(lot)]))
}
