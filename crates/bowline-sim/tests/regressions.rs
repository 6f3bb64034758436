//! Inputs that once broke a decoder do so no more.

use std::{fs, path::Path};

use bowline_sim::{fuzz::Target, meter::Counting};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn inputs_that_once_failed_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for folder in fs::read_dir(&root).unwrap() {
        let folder = folder.unwrap();
        let name = folder.file_name().into_string().unwrap();
        let target = Target::from_name(&name).unwrap_or_else(|| panic!("no target {name}"));
        for file in fs::read_dir(folder.path()).unwrap() {
            target.run(&fs::read(file.unwrap().path()).unwrap());
        }
    }
}

/// With the counting allocator, which unit tests do not have.
#[test]
fn memory_is_bounded_for_a_few_thousand_inputs() {
    for target in Target::ALL {
        let mut rng = bowline_sim::rng::Rng::new(2);
        for _ in 0..3_000 {
            target.run(&target.input(&mut rng));
        }
    }
}
