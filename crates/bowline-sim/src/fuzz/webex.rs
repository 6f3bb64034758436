//! What comes over Webex's WebSocket, from either side.

use bowline_link::{
    far::Message,
    local::rules::{Did, Rules as _},
    profile::webex::{
        WebexRules,
        envelope::{self, Activity, ID_MAX, Kind, Said, Verb, decode},
    },
    settings,
};
use bowline_proto::websocket::Message as Frame;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{meter::peak_bytes, rng::Rng};

/// One frame: as an envelope, as what a bot says, as a message that the public API has found.
pub(super) fn envelope(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let mut decoded = None;
    let peak = peak_bytes(|| decoded = decode(&frame).ok());
    let bound = 400 * data.len() + 65_536;
    assert!(peak <= bound, "{peak} bytes for an envelope of {}", data.len());
    if let Some(envelope) = decoded {
        assert!(envelope.id.as_ref().is_none_or(|id| (1..=ID_MAX).contains(&id.len())));
        let numbered = decode(&envelope::numbered(&frame, 7)).expect("an envelope stays one");
        assert_eq!((numbered.number, &numbered.kind), (Some(7), &envelope.kind));
        if let Kind::Activity(activity) = &envelope.kind {
            offered(activity, &frame);
        }
    }
    said(data);
    found(data);
}

/// A bot is offered the message, and confirms it by either of its ids.
fn offered(activity: &Activity, frame: &Bytes) {
    let mut socket = rules().socket();
    socket.heard(&Frame::Text(envelope::authorization("a", "token").into()));
    let message = Message {
        id: activity.id.clone(),
        own_id: true,
        room: activity.conversation.clone(),
        receipt: None,
        confirm: true,
        body: frame.clone(),
    };
    let Some(Frame::Binary(offer)) = socket.offer(&message, 1) else {
        panic!("a message can be offered");
    };
    let offer = decode(&offer).expect("an offer is an envelope");
    assert_eq!((offer.number, offer.kind), (Some(2), Kind::Activity(activity.clone())));

    let posted = decode(&envelope::as_post(frame, "shared")).expect("an envelope stays one");
    let Kind::Activity(posted) = posted.kind else { panic!("an activity stays one") };
    assert_eq!((&*posted.id, posted.verb), ("shared", Verb::Post));

    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if activity.id.bytes().all(is_plain) && activity.id.len() < 100 {
        let public = envelope::public_id("MESSAGE", &activity.id);
        let did = socket.heard(&Frame::Text(envelope::ack(&public).into()));
        assert_eq!(did, [Did::Confirmed { id: activity.id.clone() }]);
    }
}

fn said(data: &[u8]) {
    let mut socket = rules().socket();
    let is_admitted = envelope::said(data) == Said::Authorization;
    let did = socket.heard(&Frame::Binary(Bytes::copy_from_slice(data)));
    assert_eq!(socket.is_ready(), is_admitted);
    assert_eq!(did.len(), 1, "it is admitted, or the end");
    socket.heard(&Frame::Text(envelope::authorization("a", "token").into()));
    for did in socket.heard(&Frame::Binary(Bytes::copy_from_slice(data))) {
        match did {
            Did::Reply(Frame::Binary(reply)) => {
                decode(&reply).expect("an answer is an envelope");
            }
            Did::Confirmed { id } => assert!(id.len() <= ID_MAX),
            other => panic!("{other:?}"),
        }
    }
}

fn found(data: &[u8]) {
    let Ok(message) = serde_json::from_slice::<Value>(data) else { return };
    if let Some((activity, frame)) = envelope::of_message(&message, "https://conversations") {
        let again = decode(&frame).expect("what is made is an envelope");
        assert_eq!(again.kind, Kind::Activity(activity));
    }
}

fn rules() -> WebexRules {
    WebexRules::new(
        "ann",
        &settings::Profile::Webex {
            catalog_url: "https://u2c.wbx2.com/u2c/api/v1".to_owned(),
            api_url: "https://webexapis.com/v1".to_owned(),
            probe_room: None,
        },
    )
}

pub(super) fn valid_envelope(rng: &mut Rng) -> Vec<u8> {
    let id = |rng: &mut Rng| format!("id-{}", rng.below(5));
    let verb = *rng.pick(&["post", "share", "update", "cardAction", "acknowledge"]);
    let state = *rng.pick(&["safe", "pending"]);
    let published = *rng.pick(&["2026-11-22T10:00:00.000Z", "9999-12-31T23:59:60.9Z", "soon", ""]);
    let actor = json!({ "id": id(rng), "emailAddress": "a@b.c", "type": "PERSON" });
    let url = "https://conv-a.wbx2.com/conversation/api/v1/conversations/id-1";
    let target = json!({ "id": id(rng), "url": url, "tags": ["ONE_ON_ONE"] });
    let files = json!({ "items": [{ "malwareQuarantineState": state }] });
    let object = json!({ "objectType": "content", "contentCategory": "documents", "files": files });
    let activity = json!({ "id": id(rng), "verb": verb, "actor": actor, "target": target,
        "object": object, "parent": { "id": id(rng), "type": "reply" }, "published": published });
    let value = match rng.below(8) {
        0 => json!({ "id": id(rng), "type": "pong", "sequenceNumber": rng.below(9) }),
        1 => json!({ "id": id(rng), "type": "shutdown" }),
        2 => json!({ "id": id(rng), "data": { "eventType": "mercury.buffer_state" } }),
        3 => json!({ "id": id(rng), "type": "ping" }),
        4 => {
            let message = envelope::public_id("MESSAGE", &id(rng));
            json!({ "type": "ack", "messageId": message })
        }
        5 => json!({ "id": envelope::public_id("MESSAGE", &id(rng)), "roomId": id(rng),
            "personEmail": "a@b.c", "created": "2026-11-22T10:00:00.000Z", "parentId": id(rng) }),
        _ => {
            let data = json!({ "eventType": "conversation.activity", "activity": activity });
            json!({ "id": id(rng), "data": data, "sequenceNumber": rng.below(9) })
        }
    };
    value.to_string().into_bytes()
}
