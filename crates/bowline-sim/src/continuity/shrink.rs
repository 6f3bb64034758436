//! A script that fails, made shorter: what can be left out without its failing otherwise is left out.

use bowline_proto::client::Transports;

use super::{
    script::{Latency, Script},
    world::World,
};
use crate::caught::{Fall, catch};

/// A short script that fails.
#[derive(Debug)]
pub struct Shrunk {
    /// What is in it, line by line.
    pub script: Vec<String>,
    /// What happens, line by line.
    pub trace: Vec<String>,
    /// How it ends.
    pub fall: Fall,
}

/// Makes the script of a seed that fell shorter, with at most so many tries.
pub fn shrink(seed: u64, fall: &Fall, tries: usize) -> Shrunk {
    let mut shrinker = Shrinker { place: fall.place.clone(), tries };
    let mut script = Script::new(seed);
    loop {
        let before = script.acts.len();
        script = shrinker.drop_acts(script);
        script = shrinker.simplify(script);
        if script.acts.len() == before || shrinker.tries == 0 {
            break;
        }
    }
    let mut lines = vec![format!("seed {}: {:?}", script.seed, script.setup)];
    lines.extend(script.acts.iter().map(|(at, act)| format!("{at:?} {act:?}")));
    let mut trace = Vec::new();
    let mut keep = |line| trace.push(line);
    let fell = catch(|| World::new(script.clone(), Some(&mut keep)).run());
    let fall = fell.err().unwrap_or_else(|| fall.clone());
    Shrunk { script: lines, trace, fall }
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

    fn drop_acts(&mut self, mut script: Script) -> Script {
        let mut size = script.acts.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < script.acts.len() {
                let mut shorter = script.clone();
                shorter.acts.drain(from..(from + size).min(script.acts.len()));
                if self.falls(&shorter) {
                    script = shorter;
                } else {
                    from += size;
                }
            }
            size /= 2;
        }
        script
    }

    fn simplify(&mut self, mut script: Script) -> Script {
        let changes: [fn(&mut Script); 7] = [
            |it| it.setup.latency = Latency::Near,
            |it| it.setup.rudeness = usize::MAX,
            |it| it.setup.keep_headers = true,
            |it| it.setup.queued_bytes = 4_194_304,
            |it| it.setup.upgrades = false,
            |it| it.setup.shards = it.setup.shards.min(2),
            |it| {
                for profile in &mut it.setup.profiles {
                    profile.transports = Transports::WebSocket;
                }
            },
        ];
        for change in changes {
            let mut simpler = script.clone();
            change(&mut simpler);
            if self.falls(&simpler) {
                script = simpler;
            }
        }
        script
    }
}
