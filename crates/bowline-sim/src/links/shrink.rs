//! A random world that fails, made shorter: what can be left out without its failing otherwise is left out.

use super::{
    script::{Act, Script},
    world::World,
};
use crate::caught::{Fall, catch};

/// Seconds around what is done, in which it is said what happens.
const NEAR: f64 = 300.0;

/// A short script that fails.
#[derive(Debug)]
pub struct Shrunk {
    /// What is in it, line by line.
    pub script: Vec<String>,
    /// What happens at its end, line by line.
    pub trace: Vec<String>,
    /// How it ends.
    pub fall: Fall,
}

/// Makes the random world of a seed that fell shorter, with at most so many tries. Nothing if it was not that one.
pub fn shrink(seed: u64, fall: &Fall, tries: usize) -> Option<Shrunk> {
    let mut shrinker = Shrinker { place: fall.place.clone(), tries };
    let mut script = Script::random(seed);
    if !shrinker.falls(&script) {
        return None;
    }
    // Fewer messages first: each is a dozen lines.
    for index in 0..script.acts.len() {
        let mut simpler = script.clone();
        if let Some((_, Act::Write { times: times @ 2.., .. })) = simpler.acts.get_mut(index) {
            *times = 1;
            if shrinker.falls(&simpler) {
                script = simpler;
            }
        }
    }
    let mut size = script.acts.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < script.acts.len() {
            let mut shorter = script.clone();
            shorter.acts.drain(from..(from + size).min(shorter.acts.len()));
            if shrinker.falls(&shorter) {
                script = shorter;
            } else {
                from += size;
            }
        }
        size /= 2;
    }
    let mut lines = vec![format!("seed {}: {:?}", script.seed, script.setup)];
    lines.extend(script.acts.iter().map(|(at, act)| format!("{at:?} {act:?}")));
    let mut trace = Vec::new();
    // What is far from everything that is done says nothing.
    let chaos = script.acts.iter().filter(|(at, _)| *at < script.calm_from).map(|(at, _)| *at);
    let (first, last) = (chaos.clone().min(), chaos.max());
    let mut keep = |line: String| {
        let at = line.split_once('s').and_then(|(at, _)| at.parse::<f64>().ok());
        let near = |at: f64| {
            let [first, last] = [first, last].map(|it| it.map(|it| it.as_micros() as f64 / 1e6));
            let begun = first.is_some_and(|first| at >= first - NEAR);
            begun && last.is_some_and(|last| at <= last + NEAR)
        };
        if first.is_none() || at.is_none_or(near) {
            trace.push(line);
        }
    };
    let fell = catch(|| World::new(script.clone(), Some(&mut keep)).run());
    let fall = fell.err().unwrap_or_else(|| fall.clone());
    Some(Shrunk { script: lines, trace, fall })
}

struct Shrinker {
    place: String,
    tries: usize,
}

impl Shrinker {
    /// Whether it still falls in the same place.
    fn falls(&mut self, script: &Script) -> bool {
        if self.tries == 0 {
            return false;
        }
        self.tries -= 1;
        let fell = catch(|| World::new(script.clone(), None).run());
        fell.is_err_and(|fall| fall.place == self.place)
    }
}
