//! The header `bowline-attempts`: `kimi;timeout;75000ms, glm;ok;812ms`.

use std::time::Duration;

/// Its name, in lower case.
pub(super) const HEADER: &str = "bowline-attempts";

/// One of the attempts that the header tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt<'a> {
    pub(super) provider: &'a str,
    pub(super) outcome: &'a str,
    /// In a stream, of the last one: until its first content.
    pub(super) took: Duration,
}

/// The attempts in order. What is not understood is left out: a server may come to say more.
pub(super) fn parse(header: &str) -> impl Iterator<Item = Attempt<'_>> {
    header.split(',').filter_map(|text| {
        let mut fields = text.split(';').map(str::trim);
        let (provider, outcome) = (fields.next()?, fields.next()?);
        let ms: f64 = fields.next()?.strip_suffix("ms")?.parse().ok()?;
        let took = Duration::try_from_secs_f64(ms / 1000.0).ok()?;
        (!provider.is_empty()).then_some(Attempt { provider, outcome, took })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Vec<(&str, &str, u128)> {
        parse(header).map(|one| (one.provider, one.outcome, one.took.as_micros())).collect()
    }

    #[test]
    fn every_attempt_has_its_provider_its_outcome_and_its_time() {
        assert_eq!(
            read("kimi;timeout;75000ms, glm;ok;812ms"),
            [("kimi", "timeout", 75_000_000), ("glm", "ok", 812_000)]
        );
        assert_eq!(read("glm;ok;0.25ms"), [("glm", "ok", 250)]);
        assert_eq!(read("glm;ok;1ms;more=1 ,a;b;2ms"), [("glm", "ok", 1000), ("a", "b", 2000)]);
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        for header in [
            "",
            ",",
            "x",
            "a;b",
            "a;b;c",
            "a;b;1s",
            ";ok;1ms",
            "a;b;-1ms",
            "a;b;NaNms",
            "a;b;1e99ms",
        ] {
            assert_eq!(read(header), [], "{header}");
        }
        assert_eq!(read("?, glm;ok;1ms"), [("glm", "ok", 1000)]);
    }
}
