//! The whole of it, with a service and a bot that live in memory, and a store on disk.

mod fakes;

use std::{path::Path, time::Duration};

use bowline_proto::keeper::{self, Level, Reason, State, Verdict};
use bowline_store::Stage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{
    bot::Outcome,
    clock,
    lease::{Holder, Lease, LeaseKey},
    profile::webex::envelope::public_id,
    settings::{Deliver, Http, Link, Profile, Secret, Shared},
    view::{ProbeView, View},
};
use fakes::{Bot, FakeHost, FakeMaker, Service, until};

#[tokio::test]
async fn renewals_under_load_keep_the_order_and_bring_everything_once() {
    let world = World::new(&["a"]);
    let sent = 300;
    let load = async {
        for n in 0..sent {
            world.service("a").say(&format!("m{n}"), ["x", "y", "z"][n % 3]);
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    let renewals = async {
        for _ in 0..5 {
            let renewed = world.links.renew("a").await.unwrap();
            assert!(matches!(renewed, RenewAnswer::Renewed { .. }), "{renewed:?}");
        }
    };
    world.live("a").await;
    tokio::join!(load, renewals);
    let bot = world.bot("a");
    until("everything is confirmed", || world.view("a").figures.confirmed == sent as u64).await;
    for room in ["x", "y", "z"] {
        let offered = bot.offered_in(room);
        let expected: Vec<_> =
            (0..sent).filter(|n| ["x", "y", "z"][n % 3] == room).map(|n| format!("m{n}")).collect();
        assert_eq!(offered, expected);
    }
    let view = world.view("a");
    assert_eq!(view.figures.renewals[&Reason::Asked], 5);
    assert_eq!(view.figures.offered_again, 0);
    assert_eq!(view.inbox.waiting, 0);
    until("all is acknowledged", || {
        let acknowledged = world.service("a").acknowledged();
        (0..sent).all(|n| acknowledged.contains(&format!("receipt m{n}")))
    })
    .await;
    until("the old ones are closed", || world.service("a").open() == 1).await;
}

#[tokio::test]
async fn messages_wait_for_a_bot_that_is_not_there() {
    let world = World::new(&["a"]);
    world.bot("a").set_there(false);
    world.live("a").await;
    world.service("a").say("one", "x");
    world.service("a").say("two", "x");
    until("both wait", || world.view("a").inbox.waiting == 2).await;
    assert_eq!(world.bot("a").offered(), []);
    world.bot("a").set_there(true);
    until("both are confirmed", || world.view("a").figures.confirmed == 2).await;
    assert_eq!(world.bot("a").offered(), [("one".into(), 1), ("two".into(), 1)]);
}

#[tokio::test]
async fn a_bot_that_takes_nothing_after_all_costs_no_message() {
    let world = World::new(&["a"]);
    world.live("a").await;
    world.bot("a").behave(|offer| match offer.attempt {
        1 => Some(Outcome::Absent),
        _ => Some(fakes::confirmed()),
    });
    world.service("a").say("one", "x");
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
    assert_eq!(world.bot("a").offered(), [("one".into(), 1), ("one".into(), 2)]);
}

#[tokio::test]
async fn what_is_not_confirmed_in_time_is_offered_again_and_others_go_on() {
    let world = World::new(&["a"]);
    world.live("a").await;
    world.bot("a").behave(|offer| match (offer.message.id.as_str(), offer.attempt) {
        ("slow", 1) => None,
        ("unsure", 1) => Some(Outcome::Unconfirmed("its socket ended".into())),
        _ => Some(fakes::confirmed()),
    });
    for (id, room) in [("slow", "x"), ("behind", "x"), ("unsure", "y"), ("other", "z")] {
        world.service("a").say(id, room);
    }
    until("all are confirmed", || world.view("a").figures.confirmed == 4).await;
    let bot = world.bot("a");
    assert_eq!(bot.offered_in("x"), ["slow", "slow", "behind"]);
    assert_eq!(bot.offered_in("y"), ["unsure", "unsure"]);
    assert_eq!(bot.offered_in("z"), ["other"]);
    assert_eq!(world.view("a").figures.offered_again, 2);
    let stages: Vec<_> =
        world.links.trace("slow").await.into_iter().map(|step| step.stage).collect();
    assert_eq!(stages, [Stage::Arrived, Stage::Offered, Stage::Offered, Stage::Confirmed]);
}

#[tokio::test]
async fn what_is_refused_or_never_confirmed_is_parked_and_the_room_goes_on() {
    let world = World::with(&["a"], |link| link.offers_max = 2, |_| {});
    world.live("a").await;
    world.bot("a").behave(|offer| match offer.message.id.as_str() {
        "bad" => Some(Outcome::Refused("400".into())),
        "worse" => Some(Outcome::Unconfirmed("500".into())),
        _ => Some(fakes::confirmed()),
    });
    for id in ["bad", "worse", "good"] {
        world.service("a").say(id, "x");
    }
    until("the good one is confirmed", || world.view("a").figures.confirmed == 1).await;
    until("two are parked", || world.view("a").inbox.parked == 2).await;
    assert_eq!(world.bot("a").offered_in("x"), ["bad", "worse", "worse", "good"]);
    assert_eq!(world.view("a").figures.parked, 2);
}

#[tokio::test]
async fn what_was_put_aside_is_offered_again_when_somebody_asks() {
    let world = World::new(&["a"]);
    world.live("a").await;
    world.bot("a").behave(|_| Some(Outcome::Refused("400".into())));
    let uuid = "7f0e2ef0-9d4a-11ee-8c90-0242ac120002";
    for id in [uuid, "two", "three"] {
        world.service("a").say(id, "x");
    }
    until("they are put aside", || world.view("a").inbox.parked == 3).await;
    let parked = world.links.parked("a", 10).await;
    assert_eq!((parked.len(), parked[0].id.as_str(), parked[0].words.as_str()), (3, uuid, "400"));

    world.bot("a").behave(|_| Some(fakes::confirmed()));
    let public = public_id("MESSAGE", uuid);
    assert_eq!(world.links.offer_again("a", Some(&public)).await, Ok(Some(1)));
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
    assert_eq!(world.links.offer_again("a", Some("no such")).await, Ok(Some(0)));
    assert_eq!(world.links.offer_again("a", None).await, Ok(Some(2)));
    until("all are confirmed", || world.view("a").figures.confirmed == 3).await;
    assert_eq!(world.bot("a").offered_in("x")[3..], [uuid, "two", "three"]);
    assert_eq!(world.links.parked("a", 10).await, []);
    assert!(world.links.offer_again("b", None).await.is_err());

    let stages: Vec<_> =
        world.links.trace(&public).await.into_iter().map(|step| step.stage).collect();
    let wanted = [Stage::Arrived, Stage::Offered, Stage::Parked, Stage::Retried, Stage::Offered];
    assert_eq!(stages[..5], wanted);
}

#[tokio::test]
async fn a_connection_that_dies_in_silence_is_replaced_and_what_it_missed_is_caught_up() {
    let world = World::new(&["a"]);
    world.live("a").await;
    until("it was probed", || world.view("a").levels[&Level::Routing].is_some()).await;
    world.service("a").drop_silently();
    world.service("a").say("missed", "x");
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
    until("it is renewed", || world.renewals("a", Reason::Silent) == 1).await;
    assert_eq!(world.view("a").figures.caught_up, 1);
}

#[tokio::test]
async fn a_connection_that_nothing_is_routed_to_is_replaced_though_it_answers_pings() {
    let world = World::new(&["a"]);
    world.live("a").await;
    world.service("a").unroute();
    world.service("a").say("missed", "x");
    let answer = world.links.probe("a").await.unwrap();
    assert_eq!(answer.outcome, ProbeOutcome::Lost);
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
    until("it is renewed", || world.renewals("a", Reason::Unrouted) == 1).await;
    assert_eq!(world.bot("a").offered(), [("missed".into(), 1)]);
    until("its device is deleted", || world.service("a").discarded() == ["device 1"]).await;
}

#[tokio::test]
async fn how_the_last_round_trip_ended_is_shown_until_another_one_ends_otherwise() {
    let world = World::new(&["a"]);
    world.live("a").await;
    let last = |outcome| {
        world.view("a").last_probe.is_some_and(|probe: ProbeView| probe.outcome == outcome)
    };
    until("it came back", || last("ok")).await;
    // Nothing takes the connection's place.
    world.service("a").set_refusing(Some(Verdict::Again));
    world.service("a").unroute();
    assert_eq!(world.links.probe("a").await.unwrap().outcome, ProbeOutcome::Lost);
    until("it was lost", || last("lost")).await;
    world.service("a").set_refusing(None);
    until("one over a new connection came back", || last("ok")).await;
}

#[tokio::test]
async fn what_only_informs_is_offered_once_and_not_kept() {
    let world = World::new(&["a"]);
    world.live("a").await;
    world.bot("a").behave(|_| Some(Outcome::Unconfirmed("whatever".into())));
    world.service("a").inform("one", "x");
    world.service("a").inform("two", "x");
    until("both were offered", || world.bot("a").offered_in("x") == ["one", "two"]).await;
    world.bot("a").set_there(false);
    world.service("a").inform("three", "x");
    until("it is acknowledged", || world.service("a").acknowledged().len() == 3).await;
    until("nothing waits", || world.view("a").inbox.waiting == 0).await;
    world.bot("a").behave(|_| Some(fakes::confirmed()));
    world.bot("a").set_there(true);
    world.service("a").say("four", "x");
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
    assert_eq!(world.bot("a").offered_in("x"), ["one", "two", "four"]);
}

#[tokio::test]
async fn a_text_that_the_service_did_not_send_is_fetched_until_it_is_there() {
    let app = |link: &mut Link| link.deliver = Deliver::Http("app".into());
    let world = World::with(&["a"], app, |_| {});
    world.live("a").await;
    world.service("a").set_unfetchable(1);
    world.service("a").say("one", "x");
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
    assert_eq!(world.bot("a").bodies(), ["fetched one"]);
    let stages: Vec<_> =
        world.links.trace("one").await.into_iter().map(|step| step.stage).collect();
    assert!(stages.starts_with(&[Stage::Arrived, Stage::Fetched, Stage::Offered]), "{stages:?}");
}

#[tokio::test]
async fn an_offer_that_panics_is_made_again() {
    let world = World::new(&["a"]);
    world.live("a").await;
    world.bot("a").behave(|offer| {
        assert_ne!(offer.attempt, 1, "this is meant to happen");
        Some(fakes::confirmed())
    });
    world.service("a").say("one", "x");
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
    assert_eq!(world.bot("a").offered(), [("one".into(), 2)]);
    assert_eq!(world.service("a").opened(), 1);
}

#[tokio::test]
async fn what_comes_twice_is_offered_once_and_acknowledged_twice() {
    let world = World::new(&["a"]);
    world.live("a").await;
    world.service("a").say("one", "x");
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
    world.service("a").say("one", "x");
    until("it is acknowledged again", || world.service("a").acknowledged().len() == 2).await;
    assert_eq!(world.bot("a").offered(), [("one".into(), 1)]);
    assert_eq!(world.view("a").figures.repeated, 1);
}

#[tokio::test]
async fn a_renewal_tells_whether_there_was_a_connection_when_it_was_asked_for() {
    let world = World::new(&["a"]);
    world.live("a").await;
    let had_one = async || match world.links.renew("a").await.unwrap() {
        RenewAnswer::Renewed { had_one, .. } => had_one,
        other => panic!("{other:?}"),
    };
    assert!(had_one().await);
    world.service("a").set_refusing(Some(Verdict::Refused));
    world.service("a").close_all();
    until("it is refused", || world.view("a").state == State::Refused).await;
    world.service("a").set_refusing(None);
    assert!(!had_one().await);
}

#[tokio::test]
async fn equal_messages_without_ids_are_two_messages_except_beside_a_renewal() {
    let world = World::new(&["a"]);
    world.live("a").await;
    world.service("a").say_without_id("ping");
    world.service("a").say_without_id("ping");
    until("both are confirmed", || world.view("a").figures.confirmed == 2).await;
    let renewal = world.links.renew("a");
    let load = async {
        for n in 0..100 {
            world.service("a").say_without_id(&format!("ping {n}"));
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    tokio::join!(async { renewal.await.unwrap() }, load);
    until("all are confirmed", || world.view("a").figures.confirmed == 102).await;
    assert_eq!(world.bot("a").offered().len(), 102);
}

#[tokio::test]
async fn what_was_under_way_when_the_process_died_is_offered_again_with_its_number() {
    let mut world = World::new(&["a"]);
    world.live("a").await;
    world.bot("a").behave(|_| None);
    world.service("a").say("held", "x");
    world.service("a").say("behind", "x");
    until("it is offered", || !world.bot("a").offered().is_empty()).await;
    until("both are stored", || world.view("a").inbox.waiting == 2).await;
    world.kill();
    world.service("a").say("between", "x");
    world.bot("a").behave(|_| Some(fakes::confirmed()));
    world.start_again();
    until("all are confirmed", || world.view("a").figures.confirmed == 3).await;
    let offered = world.bot("a").offered();
    let expected = [("held", 1), ("held", 2), ("behind", 1), ("between", 1)];
    assert_eq!(offered, expected.map(|(id, attempt)| (id.to_owned(), attempt)));
    assert_eq!(world.view("a").figures.caught_up, 1);
}

#[tokio::test]
async fn what_finds_no_place_is_not_acknowledged_and_asked_for_later() {
    let world = World::with(&["a"], |_| {}, |shared| shared.waiting_max = 2);
    world.live("a").await;
    world.bot("a").set_there(false);
    world.service("a").say("one", "x");
    world.service("a").say("two", "x");
    until("two wait", || world.view("a").inbox.waiting == 2).await;
    world.service("a").say("three", "x");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.service("a").acknowledged().len(), 2);
    world.bot("a").set_there(true);
    until("all are confirmed", || world.view("a").figures.confirmed == 3).await;
    assert_eq!(world.bot("a").offered_in("x"), ["one", "two", "three"]);
}

#[tokio::test]
async fn what_found_no_place_is_said_again_on_a_new_connection_where_nobody_can_be_asked() {
    let world = World::with(&["a"], |_| {}, |shared| shared.waiting_max = 2);
    world.live("a").await;
    world.service("a").set_repeating();
    world.bot("a").set_there(false);
    for id in ["one", "two", "three", "four"] {
        world.service("a").say(id, "x");
    }
    until("two are refused", || world.view("a").figures.refused == 2).await;
    world.bot("a").set_there(true);
    until("all are confirmed", || world.view("a").figures.confirmed == 4).await;
    assert_eq!(world.bot("a").offered_in("x"), ["one", "two", "three", "four"]);
    until("it is renewed", || world.renewals("a", Reason::Asked) == 1).await;
}

#[tokio::test]
async fn a_link_whose_bot_never_comes_leaves_the_others_their_part() {
    let world = World::with(&["a", "b"], |_| {}, |shared| shared.waiting_max = 8);
    for name in ["a", "b"] {
        world.live(name).await;
        world.bot(name).set_there(false);
    }
    for n in 0..7 {
        world.service("a").say(&format!("a{n}"), "x");
    }
    until("what is over is refused", || world.view("a").figures.refused == 1).await;
    assert_eq!(world.view("a").inbox.waiting, 6, "two of its own, and the four for whoever comes");
    assert!(world.view("a").full.is_some_and(|full| full.words.contains("`waiting-max`")));
    world.service("b").say("b0", "x");
    world.service("b").say("b1", "x");
    until("both wait", || world.view("b").inbox.waiting == 2).await;
    assert_eq!((world.view("b").full, world.view("b").figures.refused), (None, 0));
    assert_eq!(world.service("a").acknowledged().len(), 6);

    world.bot("a").set_there(true);
    until("all are confirmed", || world.view("a").figures.confirmed == 7).await;
    until("it is said", || world.view("a").full.is_none()).await;
    assert_eq!(world.bot("a").offered_in("x").last().unwrap(), "a6");
}

#[tokio::test]
async fn what_waits_of_a_link_that_was_taken_out_is_told_and_offered_when_it_is_back() {
    let world = World::with(&["a", "b"], |_| {}, |shared| shared.waiting_max = 2);
    for name in ["a", "b"] {
        world.live(name).await;
        world.bot(name).set_there(false);
    }
    world.service("a").say("one", "x");
    until("it waits", || world.view("a").inbox.waiting == 1).await;
    world.links.configure(vec![link("b")]);
    until("the link is gone", || world.links.view().len() == 1).await;
    let gone = world.links.gone();
    assert_eq!((gone.len(), gone[0].link.as_str(), gone[0].counts.waiting), (1, "a", 1));
    world.service("b").say("two", "x");
    world.service("b").say("three", "x");
    until("both wait", || world.view("b").inbox.waiting == 2).await;

    world.bot("a").set_there(true);
    world.links.configure(vec![link("a"), link("b")]);
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
    assert_eq!(world.links.gone(), []);
    assert_eq!(world.links.let_go("b").await, 0, "it is there");
    world.links.configure(vec![link("a")]);
    assert_eq!(world.links.let_go("b").await, 2);
    assert_eq!(world.links.gone(), []);
}

#[tokio::test]
async fn what_the_service_was_asked_for_counts_as_missed_until_it_is_stored() {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let with_token = |link: &mut Link| link.token = Some(Secret::new("t"));
    let mut world = World::with(&["a"], with_token, |shared| shared.waiting_max = 0);
    let inbox = || Store::open(world.shared.directory.join("links.db")).inbox();
    world.live("a").await;
    while inbox().get("a", "proved").await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = clock::unix_ms() - u64::try_from(minutes(10).as_millis()).unwrap();
    let inbox = inbox();
    world.kill();
    until("it has died", || std::fs::read_dir(&world.shared.leases).unwrap().next().is_none())
        .await;
    inbox.set("a", "proved", Some(&before.to_string())).await;

    world.service("a").said_before(minutes(5), "missed", "x");
    world.start_again();
    world.live("a").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.kill();
    world.shared.waiting_max = 1_000;
    world.start_again();
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
}

#[tokio::test]
async fn what_another_process_has_stored_meanwhile_is_offered_when_it_comes_again() {
    let world = World::new(&["a"]);
    world.live("a").await;
    let store = Store::open(world.shared.directory.join("links.db"));
    let (link, id, room) = ("a".to_owned(), "one".to_owned(), "x".to_owned());
    let (at_unix_ms, body) = (clock::unix_ms(), "text".into());
    store.inbox().put(bowline_store::Arrival { link, id, room, at_unix_ms, body }).await;
    world.service("a").say("one", "x");
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
    assert_eq!(world.bot("a").offered(), [("one".into(), 1)]);
}

#[tokio::test]
async fn an_app_is_asked_only_while_its_answer_can_be_sent() {
    let app = |link: &mut Link| link.deliver = Deliver::Http("app".into());
    let mut world = World::with(&["a"], app, |_| {});
    world.live("a").await;
    world.bot("a").set_there(false);
    world.service("a").say("one", "x");
    until("it waits", || world.view("a").inbox.waiting == 1).await;
    world.kill();
    world.service("a").set_refusing(Some(Verdict::Again));
    world.bot("a").set_there(true);
    world.start_again();
    until("it is tried", || world.view("a").figures.attempts.contains_key("again")).await;
    assert_eq!(world.bot("a").offered(), []);
    world.service("a").set_refusing(None);
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
}

#[tokio::test]
async fn all_that_one_lost_connection_of_a_bot_had_counts_as_one_failure() {
    let few = |link: &mut Link| {
        link.service = Some("bot".into());
        link.keeper.service_after = Some(3);
    };
    let world = World::with(&["a"], few, |_| {});
    world.live("a").await;
    let (lose, lost) = std::sync::mpsc::channel();
    world.bot("a").behave(|offer| match offer.attempt {
        1 => Some(Outcome::Lost("its socket ended".into())),
        _ => Some(fakes::confirmed()),
    });
    let mut is_lost = false;
    world.bot("a").behave_late(move || {
        is_lost |= lost.try_recv().is_ok();
        is_lost
    });
    for n in 0..20 {
        world.service("a").say(&format!("m{n}"), &format!("room {n}"));
    }
    until("all are offered", || world.bot("a").offered().len() == 20).await;
    lose.send(()).unwrap();
    until("all are confirmed", || world.view("a").figures.confirmed == 20).await;
    assert!(!world.view("a").figures.rungs.contains_key(&keeper::Rung::Service));
}

#[tokio::test]
async fn replies_are_sent_before_the_service_hears_of_the_confirmation() {
    let world = World::new(&["a"]);
    world.live("a").await;
    world.bot("a").behave(|offer| {
        let reply = fakes::saying(&format!("answer to {}", offer.message.id));
        Some(Outcome::Confirmed { replies: vec![reply] })
    });
    world.service("a").say("one", "x");
    until("it is told", || world.service("a").heard().len() == 2).await;
    assert_eq!(world.service("a").heard(), ["send answer to one", "confirmed one"]);
    until("it is written down", || world.view("a").inbox.waiting == 0).await;
    let stages: Vec<_> =
        world.links.trace("one").await.into_iter().map(|step| step.stage).collect();
    assert_eq!(stages, [Stage::Arrived, Stage::Offered, Stage::Replied, Stage::Confirmed]);
}

#[tokio::test]
async fn what_a_bot_says_while_there_is_no_connection_goes_out_with_the_next() {
    let world = World::new(&["a"]);
    world.live("a").await;
    world.service("a").set_refusing(Some(Verdict::Again));
    world.service("a").close_all();
    until("it is gone", || world.view("a").state != State::Live).await;
    let said = async {
        world.links.send("a", fakes::saying("late")).await.unwrap();
    };
    let back = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.service("a").set_refusing(None);
    };
    tokio::join!(said, back);
    until("it has arrived", || world.service("a").heard() == ["send late"]).await;
    let attempts = world.view("a").figures.attempts;
    assert!(attempts["ok"] >= 2 && attempts["again"] >= 1, "{attempts:?}");
}

#[tokio::test]
async fn an_answer_of_the_service_reaches_whoever_asked() {
    let world = World::new(&["a"]);
    world.live("a").await;
    let asked = Outgoing { ask: Some(3), ..fakes::saying("how late is it?") };
    let answer = world.links.send("a", asked).await.unwrap();
    assert_eq!(answer, "answer to how late is it?");
    let missing = world.links.send("nobody", fakes::saying("?")).await;
    assert_eq!(missing, Err(SendFailure::Unknown(Unknown { name: "nobody".into() })));
}

#[tokio::test]
async fn a_reload_touches_only_what_has_changed() {
    let world = World::new(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        world.live(name).await;
    }
    let mut changed = link("b");
    changed.keeper.max_age = Duration::from_secs(7_000);
    world.links.configure(vec![link("a"), changed, link("d")]);
    until("c is gone, d is there", || {
        let names: Vec<_> = world.links.view().into_iter().map(|view| view.name).collect();
        names == ["a", "b", "d"]
    })
    .await;
    until("b is there anew", || world.service("b").opened() == 2).await;
    world.live("b").await;
    world.live("d").await;
    assert_eq!(world.service("a").opened(), 1);
    assert_eq!(world.service("a").goodbyes(), 0);
    assert_eq!((world.service("b").goodbyes(), world.service("c").goodbyes()), (1, 1));
    assert_eq!(world.service("c").open(), 0);
}

#[tokio::test]
async fn a_link_whose_bot_is_told_otherwise_keeps_its_connection() {
    let world = World::with(&["a"], |link| link.deliver = Deliver::Http("app".into()), |_| {});
    world.live("a").await;
    world.bot("a").behave(|offer| (offer.attempt > 1).then(fakes::confirmed));
    world.service("a").say("one", "x");
    until("it is offered", || !world.bot("a").offered().is_empty()).await;
    let bots = Deliver::Namespace("/bots".into());
    let changed = Link {
        deliver: bots.clone(),
        service: Some("bot".into()),
        offers_max: 3,
        confirm_timeout: Duration::from_secs(7),
        keeper: keeper::Config { service_after: Some(2), ..link("a").keeper },
        ..link("a")
    };
    world.links.configure(vec![changed]);
    until("the way to the bot is another", || world.maker.ways().last() == Some(&bots)).await;
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
    assert_eq!(world.bot("a").offered(), [("one".into(), 1), ("one".into(), 2)]);
    world.bot("a").behave(|_| Some(Outcome::Unconfirmed("no".into())));
    world.service("a").say("two", "x");
    until("it is put aside after three offers", || world.view("a").inbox.parked == 1).await;
    assert_eq!(world.bot("a").offered_in("x"), ["one", "one", "two", "two", "two"]);
    assert!(world.view("a").figures.rungs.contains_key(&keeper::Rung::Service));
    assert_eq!((world.service("a").opened(), world.service("a").goodbyes()), (1, 0));

    world.links.configure(vec![link("a")]);
    until("over the proxy its profile does other things", || world.service("a").goodbyes() == 1)
        .await;
    world.live("a").await;
}

#[tokio::test]
async fn a_farewell_lets_the_bot_finish_says_goodbye_and_keeps_the_device() {
    let world = World::new(&["a"]);
    world.live("a").await;
    let (finish, finished) = std::sync::mpsc::channel();
    world.bot("a").behave_late(move || finished.try_recv().is_ok());
    world.service("a").say("one", "x");
    until("it is offered", || !world.bot("a").offered().is_empty()).await;
    let farewell = world.links.farewell(Duration::from_secs(4), true);
    let finishes = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        finish.send(()).unwrap();
    };
    tokio::join!(farewell, finishes);
    assert_eq!(world.view("a").state, State::Off);
    assert_eq!(world.view("a").figures.confirmed, 1);
    assert_eq!((world.service("a").goodbyes(), world.service("a").open()), (1, 0));
    assert_eq!(world.service("a").discarded(), [""; 0]);
}

#[tokio::test]
async fn a_task_that_panics_is_started_again_and_takes_no_other_along() {
    let world = World::new(&["b"]);
    world.live("b").await;
    world.maker.panic_once("a");
    world.links.configure(vec![link("a"), link("b")]);
    until("it has failed", || world.links.view().iter().any(|view| view.words.contains("failed")))
        .await;
    world.live("a").await;
    world.service("a").say("one", "x");
    until("the message is confirmed", || world.view("a").figures.confirmed == 1).await;
    assert_eq!(world.service("b").opened(), 1);
}

#[tokio::test]
async fn a_link_whose_lease_is_held_elsewhere_is_off_and_names_the_holder() {
    let directory = tempfile::tempdir().unwrap();
    let token = |link: &mut Link| link.token = Some(Secret::new("t"));
    let mut held = link("a");
    token(&mut held);
    let leases = directory.path().join("leases");
    let owner = Holder::here("other", Path::new("/srv/other"), 0);
    let lease = Lease::take(&leases, &LeaseKey::of(&held).unwrap(), &owner).unwrap();
    let world = World::with(&["a"], token, |shared| shared.leases = leases);
    until("it is said", || world.view("a").words.contains("/srv/other")).await;
    assert_eq!(world.view("a").state, State::Off);
    let outcome = world.links.probe("a").await.unwrap().outcome;
    let ProbeOutcome::Impossible(words) = outcome else { panic!("{outcome:?}") };
    assert!(
        words.starts_with("the link is off: held by") && words.contains("/srv/other"),
        "{words}"
    );
    drop(lease);
    world.live("a").await;
}

#[tokio::test]
async fn a_way_to_the_bot_that_is_missing_is_asked_for_again() {
    let world = World::new(&[]);
    world.maker.set_deliver_missing(true);
    world.links.configure(vec![link("a")]);
    world.live("a").await;
    assert_eq!(world.view("a").bot.words, "no such backend");
    world.service("a").say("one", "x");
    until("it waits", || world.view("a").inbox.waiting == 1).await;
    world.maker.set_deliver_missing(false);
    until("it is confirmed", || world.view("a").figures.confirmed == 1).await;
}

#[tokio::test]
async fn a_listener_that_cannot_be_served_is_tried_again_which_is_shown() {
    let in_the_way = |shared: &mut Shared| {
        std::fs::create_dir_all(shared.directory.join("local.lock")).unwrap();
    };
    let world = World::with(&["a"], |_| {}, in_the_way);
    let listener = TcpListener::bind(world.shared.listen).unwrap();
    let address = listener.local_addr().unwrap();
    world.links.serve_local(listener);
    until("it is shown", || {
        let why = world.view("a").locked_out;
        why.is_some_and(|why| why.contains("local.lock"))
    })
    .await;
    std::fs::remove_dir(world.shared.directory.join("local.lock")).unwrap();
    until("it is served", || world.view("a").locked_out.is_none()).await;
    let mut bot = tokio::net::TcpStream::connect(address).await.unwrap();
    bot.write_all(b"CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    bot.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 407");
}

/// Links over services and bots in memory.
struct World {
    directory: tempfile::TempDir,
    maker: Arc<FakeMaker>,
    links: Links,
    names: Vec<Link>,
    shared: Shared,
}

impl World {
    fn new(names: &[&str]) -> Self {
        Self::with(names, |_| {}, |_| {})
    }

    fn with(
        names: &[&str],
        change: impl Fn(&mut Link),
        change_shared: impl FnOnce(&mut Shared),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut shared = Shared {
            listen: "127.0.0.1:0".parse().unwrap(),
            attempts_per_second: 100,
            attempts_burst: 100,
            directory: directory.path().to_owned(),
            leases: directory.path().join("leases"),
            waiting_max: 1_000,
        };
        change_shared(&mut shared);
        let names: Vec<Link> = names
            .iter()
            .map(|name| {
                let mut link = link(name);
                change(&mut link);
                link
            })
            .collect();
        let maker = Arc::new(FakeMaker::default());
        let links = started(&shared, &maker, &names);
        Self { directory, maker, links, names, shared }
    }

    fn service(&self, name: &str) -> Service {
        self.maker.service(name)
    }

    fn bot(&self, name: &str) -> Arc<Bot> {
        self.maker.bot(name)
    }

    /// Before the link is there it is as if it was off.
    fn view(&self, name: &str) -> View {
        let nothing = || {
            let inbox = self.links.inside.running.get().unwrap().store.inbox();
            Board::new(Clock::start(), inbox, &link(name)).view(None)
        };
        self.links.view().into_iter().find(|view| view.name == name).unwrap_or_else(nothing)
    }

    fn renewals(&self, name: &str, reason: Reason) -> u64 {
        self.view(name).figures.renewals.get(&reason).copied().unwrap_or_default()
    }

    async fn live(&self, name: &str) {
        until("the link is live", || {
            let views = self.links.view();
            views.iter().any(|view| view.name == name && view.state == State::Live)
        })
        .await;
    }

    /// As `kill -9` does: nobody says goodbye.
    fn kill(&mut self) {
        let (shared, host) = (self.shared.clone(), Arc::new(FakeHost));
        drop(std::mem::replace(&mut self.links, Links::new(shared, host)));
        for link in &self.names {
            self.service(&link.name).drop_silently();
        }
    }

    fn start_again(&mut self) {
        assert!(self.directory.path().exists());
        self.links = started(&self.shared, &self.maker, &self.names);
    }
}

fn started(shared: &Shared, maker: &Arc<FakeMaker>, names: &[Link]) -> Links {
    let links = Links::new(shared.clone(), Arc::new(FakeHost));
    links.configure(names.to_vec());
    let store = Store::open(shared.directory.join("links.db"));
    links.start_with(store, Arc::clone(maker) as Arc<dyn Maker>).unwrap();
    links
}

fn link(name: &str) -> Link {
    Link {
        name: name.to_owned(),
        profile: Profile::WebSocket {
            ack: None,
            url: format!("wss://{name}.example"),
            headers: Default::default(),
            hello: None,
            message_id: None,
            room: None,
            probe: None,
            protocols: Vec::new(),
        },
        token: None,
        proxy: None,
        ca_file: None,
        keeper: keeper::Config {
            ping_interval: Some(Duration::from_millis(100)),
            ping_timeout: Duration::from_millis(80),
            probe_timeout: Duration::from_millis(200),
            overlap: Duration::from_millis(100),
            close_timeout: Duration::from_millis(200),
            backoff_first: Duration::from_millis(20),
            backoff_max: Duration::from_millis(100),
            ..keeper::Config::default()
        },
        http: Http::default(),
        deliver: Deliver::Proxy { intercept: Vec::new() },
        service: None,
        confirm_timeout: Duration::from_millis(300),
        offers_max: 10,
    }
}
