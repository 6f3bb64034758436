//! W3C Trace Context: where a request belongs in its client's traces, and what its own spans are called.
//!
//! The spans are made of records by somebody else, long after. Here is what both must agree on while the request
//! runs: ids follow from the request's own (`x-request-id`), so that nothing is drawn or kept for them, and whoever has
//! an answer finds its trace.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use http::HeaderMap;

use crate::{limit::TRACE_STATE_MAX_BYTES, record::RequestRecord};

/// The span of a client that a request belongs to: `traceparent` and `tracestate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The trace. Not zero.
    pub trace_id: u128,
    /// The client's span. Not zero.
    pub span_id: u64,
    /// Whether the client keeps its own spans of this trace.
    pub sampled: bool,
    /// What other systems on the way have to say, passed on as it is; at most 512 bytes of it.
    pub state: Option<Arc<str>>,
}

/// The trace of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The trace: that of the parent, else the digits of `x-request-id`.
    pub trace_id: u128,
    /// The span of the request; those of its attempts follow it.
    pub span_id: u64,
    /// What the client has decided about the trace, if it has.
    sampled: Option<bool>,
}

/// How traces are made.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// How many of a hundred traces are kept. It counts for those that begin here; others are kept if their client keeps
    /// them.
    pub sample_percent: u32,
    /// Whether providers are told the trace. Default: what is of no use to them is none of their business.
    pub propagate: bool,
    /// Who makes spans of the records.
    pub tap: Arc<dyn Tap>,
}

/// Takes requests that are over and whose trace is kept.
pub trait Tap: Send + Sync + fmt::Debug {
    /// A request is over. Called in line: what takes time must be done elsewhere.
    fn on_request(&self, record: &Arc<RequestRecord>);
}

impl Parent {
    /// What a client says of its trace. `None` if it says nothing, or nothing that can be read: then a trace begins
    /// here, as W3C has it.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut said = headers.get_all("traceparent").iter();
        let (first, None) = (said.next()?, said.next()) else { return None };
        let mut parent = Self::parse(first.to_str().ok()?.trim())?;
        let mut state = String::new();
        for value in headers.get_all("tracestate") {
            let and = if state.is_empty() { "" } else { "," };
            state = format!("{state}{and}{}", value.to_str().unwrap_or_default().trim());
            if state.len() > TRACE_STATE_MAX_BYTES {
                return Some(parent);
            }
        }
        parent.state = Some(state).filter(|state| !state.is_empty()).map(Into::into);
        Some(parent)
    }

    /// `00-TRACE-SPAN-FLAGS`; a later version may have more behind that.
    fn parse(text: &str) -> Option<Self> {
        let (known, more) = text.split_at_checked(55)?;
        let version = hex(known.get(..2)?)?;
        let fits =
            if version == 0 { more.is_empty() } else { more.is_empty() || more.starts_with('-') };
        let dashes = [2, 35, 52].iter().all(|at| known.as_bytes()[*at] == b'-');
        if version == 0xff || !fits || !dashes {
            return None;
        }
        let trace_id = hex(known.get(3..35)?).filter(|id| *id != 0)?;
        let span_id = hex(known.get(36..52)?).filter(|id| *id != 0)?;
        let flags = hex(known.get(53..55)?)?;
        let span_id = u64::try_from(span_id).ok()?;
        Some(Self { trace_id, span_id, sampled: flags & 1 == 1, state: None })
    }
}

impl Trace {
    /// The trace of the request of this id, which belongs to its client's span if that has one.
    pub fn of(request_id: &str, parent: Option<&Parent>) -> Self {
        let own = own_id(request_id);
        // Spans of one trace differ in this half of their requests' ids, which is as random as the other.
        let span_id = (own >> 64) as u64;
        Self {
            trace_id: parent.map_or(own, |parent| parent.trace_id),
            span_id: if span_id == 0 { 1 } else { span_id },
            sampled: parent.map(|parent| parent.sampled),
        }
    }

    /// The span of an attempt, by its number, which begins at 1.
    pub fn attempt(&self, number: u32) -> u64 {
        match self.span_id.wrapping_add(u64::from(number)) {
            // No id. As far from the others as it can be.
            0 => u64::MAX / 2,
            id => id,
        }
    }

    /// Whether its spans are kept: as the client does, else by chance, which is the same for everybody who sees this
    /// trace (OpenTelemetry's consistent probability sampling: the last 56 bits against a threshold).
    pub fn is_sampled(&self, percent: u32) -> bool {
        const ALL: u128 = 1 << 56;
        self.sampled.unwrap_or_else(|| {
            let threshold = ALL * u128::from(100 - percent.min(100)) / 100;
            self.trace_id % ALL >= threshold
        })
    }

    /// `traceparent` for whoever is asked in an attempt.
    pub fn header(&self, number: u32, sampled: bool) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.attempt(number), u8::from(sampled))
    }
}

impl Tracing {
    /// A request is over.
    pub(crate) fn on_request(&self, record: &Arc<RequestRecord>) {
        let trace = Trace::of(&record.id, record.parent.as_deref());
        if trace.is_sampled(self.sample_percent) {
            self.tap.on_request(record);
        }
    }

    /// What a provider is told with an attempt: `traceparent` and `tracestate`.
    pub(crate) fn headers(
        &self,
        request_id: &str,
        parent: Option<&Parent>,
        number: u32,
    ) -> Option<(String, Option<Arc<str>>)> {
        self.propagate.then(|| {
            let trace = Trace::of(request_id, parent);
            let sampled = trace.is_sampled(self.sample_percent);
            (trace.header(number, sampled), parent.and_then(|parent| parent.state.clone()))
        })
    }
}

/// The number of a request: the 32 digits that its id ends with, or what its id hashes to.
fn own_id(request_id: &str) -> u128 {
    let digits = request_id.len().checked_sub(32).and_then(|at| request_id.get(at..));
    let number = digits.and_then(hex).filter(|number| *number != 0);
    number.unwrap_or_else(|| {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, request_id).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(0) << 64 | half(1) | 1
    })
}

/// Lower-case digits, as W3C has them.
fn hex(digits: &str) -> Option<u128> {
    let plain = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digits.bytes().all(plain).then(|| u128::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(headers: &[(&'static str, &str)]) -> Option<Parent> {
        let pairs = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), value.parse::<http::HeaderValue>().unwrap())
        });
        let mut map = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            map.append(name, value);
        });
        Parent::read(&map)
    }

    #[test]
    fn a_parent_is_read_as_w3c_has_it() {
        let parent = read(&[("traceparent", GOOD)]).unwrap();
        assert_eq!(parent.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span_id, parent.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(parent.state, None);
        let state = [("traceparent", GOOD), ("tracestate", "a=1"), ("tracestate", "b=2")];
        assert_eq!(read(&state).unwrap().state.as_deref(), Some("a=1,b=2"));
        // A later version may say more; what is known of it counts.
        let later = GOOD.replacen("00", "cc", 1);
        assert!(read(&[("traceparent", &later)]).is_some());
        assert!(read(&[("traceparent", &format!("{later}-what"))]).is_some());
        assert!(!read(&[("traceparent", &GOOD.replace("-01", "-02"))]).unwrap().sampled);
    }

    #[test]
    fn what_cannot_be_read_begins_a_trace() {
        let long = format!("a={}", "x".repeat(600));
        assert_eq!(read(&[("traceparent", GOOD), ("tracestate", &long)]).unwrap().state, None);
        for wrong in [
            "",
            "00",
            &GOOD[1..],
            &format!("{GOOD}-more"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("-01", "-0g"),
            &GOOD.replace("-01", "-+1"),
        ] {
            assert_eq!(read(&[("traceparent", wrong)]), None, "{wrong}");
        }
        assert_eq!(read(&[("traceparent", GOOD), ("traceparent", GOOD)]), None);
        assert_eq!(read(&[("tracestate", "a=1")]), None);
    }

    #[test]
    fn ids_follow_from_the_request() {
        let id = "req_0123456789abcdeffedcba9876543210";
        let trace = Trace::of(id, None);
        assert_eq!(format!("{:032x}", trace.trace_id), &id[4..]);
        assert_eq!(
            (trace.span_id, trace.attempt(1)),
            (0x0123_4567_89ab_cdef, 0x0123_4567_89ab_cdf0)
        );
        let header = "00-0123456789abcdeffedcba9876543210-0123456789abcdf1-01";
        assert_eq!(trace.header(2, true), header);
        let parent = read(&[("traceparent", GOOD)]).unwrap();
        let within = Trace::of(id, Some(&parent));
        assert_eq!((within.trace_id, within.span_id), (parent.trace_id, trace.span_id));
        // Other ids have traces too, and none of them is zero.
        for other in ["", "x", &"0".repeat(32), "req_ffffffffffffffff0000000000000000"] {
            let trace = Trace::of(other, None);
            assert!(trace.trace_id != 0 && trace.span_id != 0 && trace.attempt(1) != 0, "{other}");
        }
        assert_ne!(Trace::of("a", None), Trace::of("b", None));
    }

    #[test]
    fn a_client_decides_what_is_kept_and_chance_where_none_does() {
        let kept = |percent| {
            let ids = (0..1_000_u64).map(|at| format!("{:032x}", u128::from(at) << 46 | 1 << 120));
            ids.filter(|id| Trace::of(id, None).is_sampled(percent)).count()
        };
        assert_eq!((kept(0), kept(100), kept(200)), (0, 1_000, 1_000));
        assert!((200..=300).contains(&kept(25)), "{}", kept(25));
        let mut parent = read(&[("traceparent", GOOD)]).unwrap();
        assert!(Trace::of("x", Some(&parent)).is_sampled(0));
        parent.sampled = false;
        assert!(!Trace::of("x", Some(&parent)).is_sampled(100));
    }
}
