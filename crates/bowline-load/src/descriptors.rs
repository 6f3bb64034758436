//! The limit on open files, which bounds the sessions.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    error::Error,
    limit,
    plan::{Plan, Wire},
};

/// Raises the limit as far as this user may, and refuses what is beyond it.
pub(crate) fn prepare(plan: &Plan) -> Result<(), Error> {
    match raised(getrlimit(Resource::Nofile), plan)? {
        Some(limit) => setrlimit(Resource::Nofile, limit)
            .map_err(|error| Error::failed(format!("raising the limit on open files: {error}"))),
        None => Ok(()),
    }
}

/// The limit to set, if it must be another.
fn raised(limit: Rlimit, plan: &Plan) -> Result<Option<Rlimit>, Error> {
    let needed = needed(plan);
    let Rlimit { current, maximum } = limit;
    if current.is_none_or(|current| current >= needed) {
        return Ok(None);
    }
    let Some(maximum) = maximum.filter(|maximum| *maximum < needed) else {
        return Ok(Some(Rlimit { current: maximum.or(Some(needed)), maximum }));
    };
    let most = maximum.saturating_sub(limit::SPARE_DESCRIPTORS) / plan.wire.connections();
    Err(Error::failed(format!(
        "{} sessions need {needed} open files, and this user may have {maximum}: ask for \
         --sessions {most}, or raise the hard limit (ulimit -Hn, LimitNOFILE=)",
        plan.sessions,
    )))
}

/// Only sessions that are joining have all of their connections.
fn needed(plan: &Plan) -> u64 {
    let busiest = plan.wire.connections();
    let settled = if plan.wire == Wire::Upgrade { 1 } else { busiest };
    let joining = plan.parallel.min(plan.sessions) as u64;
    settled * plan.sessions as u64 + (busiest - settled) * joining + limit::SPARE_DESCRIPTORS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Wishes, Workload};

    #[test]
    fn the_limit_is_raised_or_the_number_of_sessions_is_told_that_it_allows() {
        let plan = |wire| {
            let wishes = Wishes { wire: Some(wire), sessions: Some(5000), ..Wishes::default() };
            Plan::new(Workload::Idle, &wishes).unwrap()
        };
        let limit = |current, maximum| Rlimit { current: Some(current), maximum: Some(maximum) };
        let websocket = plan(Wire::WebSocket);
        assert!(raised(limit(6000, 6000), &websocket).unwrap().is_none());
        let set = raised(limit(1024, 20_000), &websocket).unwrap().unwrap();
        assert_eq!(set.current, Some(20_000));
        let said = raised(limit(1024, 4096), &websocket).unwrap_err().to_string();
        assert!(said.contains("--sessions 4064"), "{said}");
        assert!(raised(limit(6000, 6000), &plan(Wire::Upgrade)).unwrap().is_none());
        assert!(raised(limit(6000, 6000), &plan(Wire::Polling)).is_err());
    }
}
