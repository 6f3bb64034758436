//! A modest load for hours or days, and how the server bears it: memory, permits, sockets and descriptors over time.
//! Samples are written as they come, so that a run that is cut off is not lost: [`draw`] makes of them what [`run`]
//! makes at its end.

mod picture;
mod sample;
mod verdict;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::Duration,
};

use serde::Serialize;

use self::sample::Sampler;
pub use self::{
    sample::{Admin, Sample},
    verdict::{Growth, Verdict},
};
use super::{api::Api, crowd::Crowd, plan, report, supply::Supply};
use crate::{
    clock,
    error::Error,
    limit,
    progress::Progress,
    server::{Server, own_usage},
    workloads::meter,
};

/// How long, and what is kept of it.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// For how long requests are sent.
    pub lasts: Duration,
    /// From one sample to the next.
    pub every: Duration,
    /// Where the server tells of its permits; none: those are not known.
    pub admin: Option<Admin>,
    /// The folder for `samples.jsonl`, `soak.svg` and `soak.json`. It is made if it is not there; one with samples in
    /// it is refused.
    pub out: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Always `ai-soak`.
    pub workload: &'static str,
    /// What the samples say.
    pub verdict: Verdict,
    /// Samples that were not taken: the server was too slow to tell.
    pub samples_missed: u64,
    /// The requests. There are no figures of its `server`: those are in the samples.
    pub measured: report::Report,
}

impl Wishes {
    /// Whether they make sense.
    ///
    /// # Errors
    /// They do not. The text says what would.
    pub fn check(&self) -> Result<(), Error> {
        if self.lasts.is_zero() {
            return Err(Error::usage("--soak must be longer than 0"));
        }
        if self.every < limit::SAMPLE_EVERY_MIN {
            return Err(Error::usage("--every must be 100 ms at least"));
        }
        if self.lasts.as_secs_f64() / self.every.as_secs_f64() > limit::SAMPLES_MAX as f64 {
            let most = limit::SAMPLES_MAX;
            return Err(Error::usage(format!(
                "that is more than {most} samples: lengthen --every"
            )));
        }
        Ok(())
    }
}

/// Sends requests for so long, takes samples, and at the end draws and judges them. `stop` counts how often it was asked
/// to end: after the first time nothing more is sent and what is under way is waited for, after the second it ends at
/// once. In both cases it judges what there is.
///
/// # Errors
/// What was asked for makes no sense, nobody listens there, or a file cannot be written. The text says what to do.
/// Neither requests that fail nor a server that is away for a while are errors: they are counted.
pub fn run(
    api: &Api,
    wishes: &plan::Wishes,
    concurrency: usize,
    soak: &Wishes,
    watched: bool,
    stop: &AtomicU8,
) -> Result<Report, Error> {
    wishes.check(concurrency)?;
    soak.check()?;
    let server = Server::new(&wishes.pids, api.address());
    let mut crowd = Crowd::new(api, wishes, concurrency)?;
    crowd.connect()?;
    fs::create_dir_all(&soak.out).map_err(Error::io("making the folder of --out"))?;
    let mut sampler =
        Sampler::start(&soak.out.join(SAMPLES), server, wishes, api.address(), soak.admin.clone())?;
    let mut progress = Progress::new(watched);
    progress.begin("soak", millis(soak.lasts));

    let own = own_usage()?;
    let begun = clock::now();
    let rate = wishes.rate.unwrap_or(1.0);
    let requests = ((soak.lasts.as_secs_f64() * rate) as u64).max(1);
    let mut next = begun + soak.every;
    let mut cut = false;
    let ended = crowd.run(Supply::on_schedule(begun, rate, requests), &mut |supply, tally| {
        let now = clock::now();
        match stop.load(Ordering::Relaxed) {
            0 => {}
            1 => supply.end(),
            _ => {
                cut = true;
                return Err(Error::failed("ended"));
            }
        }
        if now >= next {
            // One that is late does not make the next ones late.
            let behind = now.saturating_duration_since(next).as_nanos() / soak.every.as_nanos();
            next += soak.every * u32::try_from(behind + 1).unwrap_or(u32::MAX);
            sampler.take(Sample::of(tally, now - begun, false))?;
            progress.say(&format!("{} asked, {} failed", tally.requests, tally.failures()));
        }
        progress.interval();
        progress.at(millis(now - begun));
        Ok(())
    });
    progress.end();
    let took = clock::now() - begun;
    let own = own_usage()?.cpu.saturating_sub(own.cpu);
    if !cut {
        ended?;
        // The server has a moment to tidy up. What it holds then, it holds for good.
        thread::sleep(limit::SETTLE);
    }
    let now = clock::now() - begun;
    sampler.take(Sample::of(&mut crowd.tally, now, !cut))?;
    let samples_missed = sampler.missed();
    let samples = sampler.end()?;

    let verdict = finish(&soak.out, &samples)?;
    let mut measured = report::Report::new(api, wishes, concurrency, &crowd.tally, took);
    let requests = crowd.tally.requests.max(1);
    measured.load.cpu_us_per_request = meter::each(meter::micros(own), requests);
    let report = Report { workload: "ai-soak", verdict, samples_missed, measured };
    let json = serde_json::to_string_pretty(&report).unwrap_or_default();
    fs::write(soak.out.join(REPORT), json + "\n").map_err(Error::io("writing soak.json"))?;
    Ok(report)
}

/// Draws and judges the samples in a folder, of a run that was cut off or of one that goes on.
///
/// # Errors
/// There are none, or the picture cannot be written.
pub fn draw(folder: &Path) -> Result<Verdict, Error> {
    finish(folder, &sample::read(&folder.join(SAMPLES))?)
}

/// Samples, one line each.
const SAMPLES: &str = "samples.jsonl";

/// They as a picture.
const PICTURE: &str = "soak.svg";

/// What came of it.
const REPORT: &str = "soak.json";

fn finish(folder: &Path, samples: &[Sample]) -> Result<Verdict, Error> {
    let verdict = Verdict::of(samples);
    picture::svg(&folder.join(PICTURE), samples, verdict.rss.as_ref())?;
    Ok(Verdict { picture: picture::text(samples), ..verdict })
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

impl Report {
    /// As one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        format!("{}\n{}", self.measured.table(), self.verdict.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (hour, second) = (Duration::from_secs(3600), Duration::from_secs(1));
        let good = Wishes { lasts: hour, every: second, admin: None, out: "x".into() };
        assert!(good.check().is_ok());
        for (lasts, every) in
            [(Duration::ZERO, second), (hour, Duration::from_millis(99)), (hour * 24 * 365, second)]
        {
            assert!(
                Wishes { lasts, every, ..good.clone() }.check().is_err(),
                "{lasts:?} {every:?}"
            );
        }
    }
}
