//! The graph of components, without threads.

use std::time::{Duration, SystemTime};

use bowline_proto::Time;
use proptest::prelude::*;

use super::{
    ComponentError, ComponentState,
    ComponentState::{Failed, Loading, Ready, Skipped, Waiting},
    ComponentView, Graph, Moment, Readiness, Spec,
};

/// Nothing begins to load.
const NONE: [usize; 0] = [];

#[test]
fn what_needs_nothing_loads_at_once_and_the_rest_in_the_order_of_their_needs() {
    let mut graph =
        graph(&[("app", "index model"), ("index", "disk"), ("model", ""), ("disk", "")]);
    assert_eq!(graph.readiness(), Readiness::Starting);
    assert_eq!(graph.start(at(1)), [2, 3]);
    assert_eq!(states(&graph), [Waiting, Waiting, Loading, Loading]);
    assert_eq!(waiting_for(&graph, 0), ["index", "model"]);
    assert_eq!(graph.end(2, at(2), Ok(())), NONE);
    assert_eq!(waiting_for(&graph, 0), ["index"]);
    assert_eq!(graph.end(3, at(3), Ok(())), [1]);
    assert_eq!(graph.end(1, at(4), Ok(())), [0]);
    assert_eq!(graph.readiness(), Readiness::Starting);
    assert_eq!(graph.end(0, at(9), Ok(())), NONE);
    assert_eq!(graph.readiness(), Readiness::Ready);
    assert_eq!(graph.ready_at, Some(at(9).time));
    let views = graph.views(at(20).time);
    assert_eq!(views[0].since, at(9).wall);
    assert_eq!(views[0].loading_for, Some(Duration::from_secs(5)));
    assert_eq!(views[2].loading_for, Some(Duration::from_secs(1)));
}

#[test]
fn services_beside_the_server_count_as_far_as_they_are_required() {
    let view = |required, state| ComponentView {
        name: "api".to_owned(),
        required,
        state,
        progress: 0.0,
        text: String::new(),
        waiting_for: Vec::new(),
        since: SystemTime::UNIX_EPOCH,
        error: None,
        loading_for: None,
    };
    let with = |readiness: Readiness, required, state| readiness.with(&[view(required, state)]);
    let (serving, not) =
        (Readiness::Degraded { serving: true }, Readiness::Degraded { serving: false });
    assert_eq!(Readiness::Ready.with(&[]), Readiness::Ready);
    for state in [Waiting, Loading] {
        assert_eq!(with(Readiness::Ready, true, state), Readiness::Starting);
        assert_eq!(with(serving, true, state), Readiness::Starting);
        assert_eq!(with(Readiness::Ready, false, state), Readiness::Ready);
        assert_eq!(with(not, true, state), not);
    }
    assert_eq!(with(Readiness::Ready, true, Failed), not);
    assert_eq!(with(Readiness::Starting, true, Failed), not);
    assert_eq!(with(Readiness::Ready, false, Failed), serving);
    assert_eq!(with(Readiness::Starting, false, Failed), Readiness::Starting);
    // One that somebody has stopped, and that is not required, is no fault.
    assert_eq!(with(Readiness::Ready, false, Skipped), Readiness::Ready);
    assert_eq!(with(serving, true, Ready), serving);
}

#[test]
fn without_components_a_server_is_ready_when_it_starts() {
    let mut graph = graph(&[]);
    assert_eq!(graph.readiness(), Readiness::Starting);
    assert_eq!(graph.start(at(1)), NONE);
    assert_eq!((graph.readiness(), graph.ready_at), (Readiness::Ready, Some(at(1).time)));
}

#[test]
fn what_needs_a_failed_component_is_skipped_however_far_away() {
    let mut graph = graph(&[("a", ""), ("b", "a"), ("c", "b"), ("d", "")]);
    graph.start(at(1));
    assert_eq!(graph.end(0, at(2), Err("no such file".to_owned())), NONE);
    assert_eq!(states(&graph), [Failed, Skipped, Skipped, Loading]);
    assert_eq!(graph.readiness(), Readiness::Degraded { serving: false });
    let views = graph.views(at(3).time);
    assert_eq!(views[0].error.as_deref(), Some("no such file"));
    assert_eq!((&*views[2].waiting_for, views[2].since), (&["b".to_owned()][..], at(2).wall));
    assert_eq!(views[2].loading_for, None);
}

#[test]
fn an_optional_component_that_fails_leaves_the_server_serving() {
    let mut specs = vec![spec("needed", ""), spec("nice", "")];
    specs[1].required = false;
    let mut graph = Graph::new(&specs, at(0)).unwrap();
    graph.start(at(1));
    graph.end(1, at(2), Err("gone".to_owned()));
    // Not yet, is said before that something is missing.
    assert_eq!(graph.readiness(), Readiness::Starting);
    graph.end(0, at(3), Ok(()));
    assert_eq!(graph.readiness(), Readiness::Degraded { serving: true });
    assert_eq!(graph.ready_at, Some(at(3).time));
    assert!(graph.readiness().is_serving());
}

#[test]
fn an_optional_component_that_still_loads_does_not_keep_the_server_from_being_ready() {
    let mut specs = vec![spec("needed", ""), spec("nice", "")];
    specs[1].required = false;
    let mut graph = Graph::new(&specs, at(0)).unwrap();
    graph.start(at(1));
    graph.end(0, at(2), Ok(()));
    assert_eq!(graph.readiness(), Readiness::Ready);
}

#[test]
fn needs_that_cannot_be_met_are_refused_by_name() {
    let error = |parts: &[(&str, &str)]| {
        let specs = parts.iter().map(|(name, needs)| spec(name, needs)).collect::<Vec<_>>();
        Graph::new(&specs, at(0)).unwrap_err()
    };
    let unknown = error(&[("a", "b")]);
    assert_eq!(unknown.to_string(), "the component `a` needs `b`, which there is not");
    assert_eq!(error(&[("a", ""), ("a", "")]), ComponentError::Twice("a".to_owned()));
    assert_eq!(error(&[("", "")]), ComponentError::Name(String::new()));
    assert_eq!(error(&[("a\0", "")]), ComponentError::Name("a\0".to_owned()));
    assert_eq!(error(&[("self", "self")]).to_string(), circle("self -> self"));
    // What only hangs on a circle is not shown as part of it, on either side.
    let long = [("root", ""), ("x", "root y"), ("y", "z"), ("z", "root x"), ("leaf", "x")];
    assert_eq!(error(&long).to_string(), circle("x -> y -> z -> x"));
    let behind = [("leaf", "p"), ("p", "q"), ("q", "p")];
    assert_eq!(error(&behind).to_string(), circle("p -> q -> p"));
}

#[test]
fn progress_counts_while_a_component_loads_and_is_a_share() {
    let mut graph = graph(&[("a", ""), ("b", "a")]);
    graph.start(at(1));
    let mut shown = |index: usize, fraction: f64| {
        graph.set_progress(index, fraction, format!("{fraction}"));
        graph.views(at(1).time)[index].progress
    };
    assert_eq!(shown(0, 0.25), 0.25);
    assert_eq!(shown(0, 7.0), 1.0);
    assert_eq!(shown(0, -1.0), 0.0);
    assert_eq!(shown(0, f64::NAN), 0.0);
    assert_eq!(shown(1, 0.5), 0.0);
    graph.set_progress(0, 0.5, "half".to_owned());
    assert_eq!(graph.views(at(1).time)[0].text, "half");
    graph.end(0, at(2), Ok(()));
    graph.set_progress(0, 0.1, "late".to_owned());
    let view = &graph.views(at(2).time)[0];
    assert_eq!((view.progress, &*view.text), (1.0, "half"));
}

#[test]
fn words_of_an_application_are_cut_between_letters() {
    let mut graph = graph(&[("a", "")]);
    graph.start(at(1));
    graph.end(0, at(2), Err("ä".repeat(501) + "!"));
    assert_eq!(graph.views(at(2).time)[0].error, Some("ä".repeat(500)));
    graph.set_progress(0, 0.0, String::new());
}

#[test]
fn a_component_that_looks_after_itself_comes_and_goes() {
    let mut graph = graph(&[]);
    graph.start(at(1));
    assert!(graph.report("certificates", at(2), Ok(())).is_some());
    assert!(graph.report("certificates", at(3), Ok(())).is_none());
    assert_eq!(graph.views(at(3).time)[0].since, at(2).wall);
    assert!(graph.report("certificates", at(4), Err("expired".to_owned())).is_some());
    assert_eq!(graph.readiness(), Readiness::Degraded { serving: true });
    // Other words are news, but not a new state.
    assert!(graph.report("certificates", at(5), Err("unreadable".to_owned())).is_some());
    let view = &graph.views(at(5).time)[0];
    assert_eq!((view.since, view.error.as_deref()), (at(4).wall, Some("unreadable")));
    assert!(graph.report("certificates", at(6), Ok(())).is_some());
    let view = &graph.views(at(6).time)[0];
    assert_eq!((graph.readiness(), view.error.as_deref()), (Readiness::Ready, None));
    assert!(!view.required);
}

#[test]
fn a_component_that_says_it_is_ready_lets_go_what_waits_for_it() {
    let mut graph = graph(&[("database", ""), ("app", "database")]);
    graph.start(at(1));
    assert_eq!(graph.report("database", at(2), Ok(())), Some(vec![1]));
    // Its load ends later, and nothing begins twice.
    assert_eq!(graph.end(0, at(3), Ok(())), NONE);
    assert_eq!(graph.end(1, at(4), Ok(())), NONE);
    // It may be lost later: then the server should get no clients.
    assert!(graph.report("database", at(5), Err("gone".to_owned())).is_some());
    assert_eq!(states(&graph), [Failed, Ready]);
    assert_eq!(graph.readiness(), Readiness::Degraded { serving: false });
    assert_eq!(graph.ready_at, Some(at(4).time));
}

proptest! {
    /// Whatever the graph and the outcomes: nothing loads before its needs are ready, everything
    /// ends, and exactly what hangs on a failure is skipped.
    #[test]
    fn every_component_of_any_graph_ends_where_its_needs_allow(
        needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..12),
        fails in prop::collection::vec(prop::bool::weighted(0.2), 12),
        pick in prop::collection::vec(any::<prop::sample::Index>(), 12),
    ) {
        // Each needs some of those before it, so there is no circle.
        let needs = needs.iter().enumerate().map(|(index, needs)| {
            needs.iter().filter(|_| index > 0).map(|need| need.index(index)).collect::<Vec<_>>()
        }).collect::<Vec<_>>();
        let specs = needs.iter().enumerate().map(|(index, needs)| {
            let names = needs.iter().map(|need| format!("c{need}")).collect::<Vec<_>>();
            spec(&format!("c{index}"), &names.join(" "))
        }).collect::<Vec<_>>();
        let mut graph = Graph::new(&specs, at(0)).unwrap();
        let mut loading = graph.start(at(0));
        let mut picks = pick.iter().cycle();
        while !loading.is_empty() {
            let next = loading.swap_remove(picks.next().unwrap().index(loading.len()));
            for need in &needs[next] {
                prop_assert_eq!(graph.parts[*need].state, Ready);
            }
            let outcome = if fails[next] { Err("failed".to_owned()) } else { Ok(()) };
            loading.extend(graph.end(next, at(1), outcome));
        }
        for (index, state) in states(&graph).into_iter().enumerate() {
            let lost = needs[index].iter().any(|need| states(&graph)[*need] != Ready);
            let expected = match (lost, fails[index]) {
                (true, _) => Skipped,
                (false, true) => Failed,
                (false, false) => Ready,
            };
            prop_assert_eq!(state, expected);
        }
    }
}

fn graph(parts: &[(&str, &str)]) -> Graph {
    let specs = parts.iter().map(|(name, needs)| spec(name, needs)).collect::<Vec<_>>();
    Graph::new(&specs, at(0)).unwrap()
}

/// `needs` are names with blanks between them.
fn spec(name: &str, needs: &str) -> Spec {
    Spec {
        name: name.to_owned(),
        needs: needs.split_whitespace().map(str::to_owned).collect(),
        required: true,
        load: Box::new(|_| Ok(())),
    }
}

fn at(seconds: u64) -> Moment {
    let time = Duration::from_secs(seconds);
    Moment { time: Time::ZERO + time, wall: SystemTime::UNIX_EPOCH + time }
}

fn states(graph: &Graph) -> Vec<ComponentState> {
    graph.parts.iter().map(|part| part.state).collect()
}

fn waiting_for(graph: &Graph, index: usize) -> Vec<String> {
    graph.views(at(0).time)[index].waiting_for.clone()
}

fn circle(names: &str) -> String {
    format!("components need one another in a circle: {names}")
}
