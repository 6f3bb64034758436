//! Which Python, and whether it can.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::json;

use super::{Choice, Wrong, directory, path_with, pins, tree};
use crate::{
    os::environment,
    probe::Surroundings,
    spec::{Run, Service, Which},
};

/// Asked of the interpreter.
const PROOF: &str = include_str!("proof.py");

/// Directories that virtual environments are in, the likeliest first.
const ENVIRONMENTS: &[&str] = &[".venv", "venv"];

/// What a conda environment is described by.
const CONDA_FILES: &[&str] = &["environment.yml", "environment.yaml"];

/// An interpreter that something speaks for.
#[derive(Debug)]
struct Candidate {
    program: PathBuf,
    why: String,
    /// The environment it belongs to.
    root: Option<PathBuf>,
    /// How what is missing is installed there.
    install: String,
}

/// What is asked about.
#[derive(Debug)]
struct Entry {
    /// `script`, `module` (run by `-m`), `import` (loaded by a server), `none`.
    kind: &'static str,
    name: OsString,
    /// What comes first in `sys.path`.
    first: PathBuf,
}

/// What the interpreter says.
#[derive(Debug, Deserialize)]
struct Said {
    version: String,
    prefix: String,
    base: String,
    missing: Vec<Import>,
    guarded: Vec<Import>,
    pins: BTreeMap<String, String>,
    #[serde(default)]
    unreadable: Option<String>,
    #[serde(default)]
    syntax: Option<Syntax>,
    #[serde(default)]
    entry: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Import {
    name: String,
    /// 0 for the entry itself.
    line: u32,
}

#[derive(Debug, Deserialize)]
struct Syntax {
    line: u32,
    words: String,
}

pub(super) fn resolve(
    service: &Service,
    which: &Which,
    surroundings: &Surroundings,
) -> Result<Choice, Wrong> {
    let entry = entry(service, &directory(surroundings))?;
    let candidate = choose(service, which, surroundings)?;
    let said = prove(&candidate, &entry, surroundings)?;
    judge(&candidate, &entry, &said)?;
    Ok(choice(service, candidate, &said, surroundings))
}

/// What the service runs, as far as it is Python.
fn entry(service: &Service, directory: &Path) -> Result<Entry, Wrong> {
    let first = directory.to_owned();
    match &service.run {
        Run::Script { path, .. } => script(&directory.join(path)),
        Run::Module { name, .. } => Ok(Entry { kind: "module", name: name.into(), first }),
        Run::Command(command) => {
            let program = command.first().map(Path::new).and_then(Path::file_name);
            let is_python = program.is_some_and(|it| it.to_string_lossy().starts_with("python"));
            let rest = command.get(1..).unwrap_or_default();
            if is_python {
                return of_python(rest, directory);
            }
            // `gunicorn app:app`, `uvicorn package.module:create_app`.
            let app = rest.iter().filter_map(|word| word.to_str()).find_map(app_module);
            Ok(match app {
                Some(module) => Entry { kind: "import", name: module.into(), first },
                None => Entry { kind: "none", name: OsString::new(), first },
            })
        }
    }
}

/// What `python …` runs.
fn of_python(arguments: &[OsString], directory: &Path) -> Result<Entry, Wrong> {
    let first = directory.to_owned();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("-m") => {
                let name = words.next().cloned().unwrap_or_default();
                return Ok(Entry { kind: "module", name, first });
            }
            // These take the next word.
            Some("-W" | "-X") => {
                words.next();
            }
            Some(word) if word == "-c" || word == "-" => break,
            Some(word) if word.starts_with('-') => {}
            _ => return script(&directory.join(word)),
        }
    }
    Ok(Entry { kind: "none", name: OsString::new(), first })
}

fn script(path: &Path) -> Result<Entry, Wrong> {
    if let Err(error) = fs::metadata(path) {
        return Err(Wrong::new(
            format!("the script {} cannot be read: {error}", path.display()),
            "`script` is a path from `directory`",
        ));
    }
    // As Python does: where the file really is.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let first = real.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(Entry { kind: "script", name: path.into(), first })
}

/// The module in `module:attribute`, as servers of apps take it.
fn app_module(word: &str) -> Option<&str> {
    let (module, attribute) = word.split_once(':')?;
    let is_name = |part: &str| {
        !part.is_empty()
            && !part.starts_with(|c: char| c.is_ascii_digit())
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    // `create_app()` is a factory.
    let attribute = attribute.split('(').next()?;
    (module.split('.').all(is_name) && attribute.split('.').all(is_name)).then_some(module)
}

/// The interpreter that the surroundings of the service speak for: the first of these that there is. One
/// that is there and broken is no reason to go on to the next, which was not meant.
fn choose(
    service: &Service,
    which: &Which,
    surroundings: &Surroundings,
) -> Result<Candidate, Wrong> {
    let start = directory(surroundings);
    if let Which::Path(path) = which {
        return explicit(&start.join(path));
    }
    if let Some(root) = given(service, "VIRTUAL_ENV") {
        return Ok(of_root(&start.join(root), "VIRTUAL_ENV of the service".to_owned()));
    }
    let script = match &service.run {
        Run::Script { path, .. } => start.join(path).parent().map(Path::to_owned),
        Run::Module { .. } | Run::Command(_) => None,
    };
    let starts: Vec<&Path> = script.iter().map(PathBuf::as_path).chain([&*start]).collect();
    let around = tree::upwards(&starts);
    if let Some(found) = around.iter().find_map(|directory| beside(directory)) {
        return Ok(found);
    }
    let path = surroundings.environment.get(OsStr::new("PATH")).map(OsString::as_os_str);
    if let Some(found) = uv(&around, path, surroundings)? {
        return Ok(found);
    }
    if let Some(found) = poetry(&around, path, surroundings)? {
        return Ok(found);
    }
    if let Some(found) = conda(given(service, "CONDA_PREFIX"), &around, surroundings)? {
        return Ok(found);
    }
    match tree::program(&["python3", "python"], &start, path) {
        Some(program) => Ok(Candidate {
            install: format!("{} -m pip install", program.display()),
            why:
                "PATH; there is no .venv, venv, uv, poetry or conda environment around the service"
                    .to_owned(),
            root: None,
            program,
        }),
        None => Err(Wrong::new(
            "there is no Python: no environment around the service, and no python3 in PATH",
            "install Python, or say which with `python = \"/path/to/python\"`",
        )),
    }
}

/// A variable that the service itself was given; what Bowline's own shell had says nothing about it.
fn given(service: &Service, name: &str) -> Option<OsString> {
    let name = OsStr::new(name);
    let in_files = || {
        // One that cannot be read is told when the service starts.
        let files = service.environment_files.iter().rev();
        files.filter_map(|file| environment::read(file).ok()).find_map(|mut it| it.remove(name))
    };
    service.environment.get(name).cloned().or_else(in_files).filter(|value| !value.is_empty())
}

/// A program, or the root of an environment.
fn explicit(path: &Path) -> Result<Candidate, Wrong> {
    let why = "`python` says so".to_owned();
    if path.is_dir() {
        return Ok(of_root(path, why));
    }
    let root = path.parent().and_then(Path::parent).filter(|root| is_environment(root));
    Ok(Candidate {
        program: path.to_owned(),
        why,
        install: format!("{} -m pip install", path.display()),
        root: root.map(Path::to_owned),
    })
}

fn of_root(root: &Path, why: String) -> Candidate {
    let program = root.join("bin/python");
    let install = format!("{} -m pip install", program.display());
    Candidate { program, why, root: Some(root.to_owned()), install }
}

fn is_environment(root: &Path) -> bool {
    root.join("pyvenv.cfg").is_file() || root.join("conda-meta").is_dir()
}

/// The environment in a directory, broken or not.
fn beside(directory: &Path) -> Option<Candidate> {
    ENVIRONMENTS.iter().find_map(|name| {
        let root = directory.join(name);
        // A dangling link counts: it is what was meant.
        let meant = |file: &str| root.join(file).symlink_metadata().is_ok();
        if meant("pyvenv.cfg") || meant("bin/python") {
            return Some(of_root(&root, format!("{name} of {}", directory.display())));
        }
        // Some tools keep environments elsewhere and leave a file that says where.
        let place = tree::read(&root).ok()?;
        let place = Path::new(place.trim());
        (place.is_absolute() && place.is_dir())
            .then(|| of_root(place, format!("{name} of {} names it", directory.display())))
    })
}

/// What uv would run: its environment is `.venv`, unless it is told another place.
fn uv(
    around: &[PathBuf],
    path: Option<&OsStr>,
    surroundings: &Surroundings,
) -> Result<Option<Candidate>, Wrong> {
    let Some((lock, _)) = tree::nearest(around, "uv.lock") else { return Ok(None) };
    let project = lock.parent().unwrap_or(Path::new("/"));
    let elsewhere = surroundings.environment.get(OsStr::new("UV_PROJECT_ENVIRONMENT"));
    if let Some(root) = elsewhere.map(|it| project.join(it)).filter(|it| it.is_dir()) {
        let mut found = of_root(&root, "UV_PROJECT_ENVIRONMENT".to_owned());
        found.install = format!("run `uv sync` in {}; it adds", project.display());
        return Ok(Some(found));
    }
    let sync = || format!("run `uv sync` in {}", project.display());
    let Some(uv) = tree::program(&["uv"], project, path) else {
        return Err(Wrong::new(
            format!(
                "{} speaks for uv, but there is no .venv beside it and no uv in PATH",
                lock.display()
            ),
            format!("install uv, then {}", sync()),
        ));
    };
    let arguments = ["python", "find", "--offline", "--project"].map(OsString::from);
    let mut arguments = Vec::from(arguments);
    arguments.push(project.into());
    let said = super::run(&uv, &arguments, surroundings)
        .map_err(|words| Wrong::new(format!("uv does not run: {words}"), sync()))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let program = PathBuf::from(text.trim());
    if !program.is_absolute() {
        let words = format!("uv finds no Python for {}: {}", project.display(), said.last_words());
        return Err(Wrong::new(words, sync()));
    }
    let root = program.parent().and_then(Path::parent).filter(|root| is_environment(root));
    Ok(Some(Candidate {
        why: format!("uv's for {}", project.display()),
        root: root.map(Path::to_owned),
        install: format!("{}; it adds", sync()),
        program,
    }))
}

fn poetry(
    around: &[PathBuf],
    path: Option<&OsStr>,
    surroundings: &Surroundings,
) -> Result<Option<Candidate>, Wrong> {
    let project = tree::nearest(around, "poetry.lock").map(|(file, _)| file).or_else(|| {
        let (file, text) = tree::nearest(around, "pyproject.toml")?;
        text.contains("[tool.poetry").then_some(file)
    });
    let Some(project) = project else { return Ok(None) };
    let project = project.parent().unwrap_or(Path::new("/")).to_owned();
    let install = format!("run `poetry install` in {}", project.display());
    let Some(poetry) = tree::program(&["poetry"], &project, path) else {
        return Err(Wrong::new(
            format!(
                "{} is poetry's, and there is no poetry in PATH to say where its environment is",
                project.display()
            ),
            "add poetry to PATH, or say which Python with `python = \"/path/to/python\"`",
        ));
    };
    let arguments = ["env", "info", "--path", "--no-ansi", "--directory"].map(OsString::from);
    let mut arguments = Vec::from(arguments);
    arguments.push(project.clone().into());
    let said = super::run(&poetry, &arguments, surroundings)
        .map_err(|words| Wrong::new(format!("poetry does not run: {words}"), install.clone()))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let root = PathBuf::from(text.trim());
    if !root.is_absolute() {
        let words = format!("poetry has no environment for {}", project.display());
        return Err(Wrong::new(words, install));
    }
    let mut found = of_root(&root, format!("poetry's for {}", project.display()));
    found.install = format!("{install}; it adds");
    Ok(Some(found))
}

fn conda(
    prefix: Option<OsString>,
    around: &[PathBuf],
    surroundings: &Surroundings,
) -> Result<Option<Candidate>, Wrong> {
    if let Some(root) = prefix {
        let mut found = of_root(Path::new(&root), "CONDA_PREFIX of the service".to_owned());
        found.install = format!("conda install -p {}", root.display());
        return Ok(Some(found));
    }
    let Some((file, text)) = CONDA_FILES.iter().find_map(|name| tree::nearest(around, name)) else {
        return Ok(None);
    };
    let name = text.lines().find_map(|line| line.strip_prefix("name:"));
    let Some(name) = name.map(|name| name.trim().trim_matches(['"', '\''])) else {
        return Ok(None);
    };
    // conda writes down all environments that it makes.
    let home = surroundings.environment.get(OsStr::new("HOME")).map(PathBuf::from);
    let known = home.and_then(|home| tree::read(&home.join(".conda/environments.txt")).ok());
    let root = (known.as_deref().unwrap_or_default().lines())
        .map(|line| Path::new(line.trim()))
        .find(|root| root.file_name() == Some(OsStr::new(name)) && root.is_dir());
    let Some(root) = root else {
        return Err(Wrong::new(
            format!("{} names the conda environment {name}, which is not there", file.display()),
            format!("run `conda env create -f {}`", file.display()),
        ));
    };
    let mut found = of_root(root, format!("conda's, by {}", file.display()));
    found.install = format!("conda install -n {name}");
    Ok(Some(found))
}

/// Runs the interpreter.
fn prove(candidate: &Candidate, entry: &Entry, surroundings: &Surroundings) -> Result<Said, Wrong> {
    let shown = shown(candidate);
    if let Some(broken) = broken(candidate) {
        return Err(broken);
    }
    let name = entry.name.to_string_lossy();
    let asked = json!({
        "kind": entry.kind,
        "entry": name,
        "first": entry.first.to_string_lossy(),
        "pins": pins::names(),
    });
    let arguments = ["-I", "-c", PROOF, &asked.to_string()].map(OsString::from);
    let said = super::run(&candidate.program, &arguments, surroundings)
        .map_err(|words| Wrong::new(format!("{shown} does not run: {words}"), again(candidate)))?;
    if said.status.is_none() {
        let words = format!("{shown} did not answer within {} s", crate::limit::PROOF.as_secs());
        return Err(Wrong::new(words, "run it by hand: it should answer at once"));
    }
    let line = said.stdout.split(|byte| *byte == b'\n').rev().find(|line| line.starts_with(b"{"));
    line.and_then(|line| serde_json::from_slice(line).ok()).ok_or_else(|| {
        let words = format!("{shown} is no Python 3.8 or newer, or broken: {}", said.last_words());
        Wrong::new(words, again(candidate))
    })
}

fn shown(candidate: &Candidate) -> String {
    format!("{} ({})", candidate.program.display(), candidate.why)
}

/// How an environment is made again.
fn again(candidate: &Candidate) -> String {
    match &candidate.root {
        Some(root) if root.join("conda-meta").is_dir() => {
            "make the conda environment again".to_owned()
        }
        Some(root) => format!(
            "make it again: `python3 -m venv --clear {}`, then install what it had",
            root.display()
        ),
        None => "say which Python with `python = \"/path/to/python\"`".to_owned(),
    }
}

/// An environment whose Python is gone says so itself; the system would only say that a file is not there.
fn broken(candidate: &Candidate) -> Option<Wrong> {
    let program = &candidate.program;
    if program.exists() {
        return None;
    }
    let words = match (fs::read_link(program), &candidate.root) {
        (Ok(target), _) => format!(
            "{} is broken: it is a link to {}, which does not exist (was that Python removed or upgraded?)",
            shown(candidate),
            target.display()
        ),
        (Err(_), Some(root)) => {
            let text = tree::read(&root.join("pyvenv.cfg")).unwrap_or_default();
            let home = text.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key.trim() == "home").then(|| value.trim().to_owned())
            });
            match home.filter(|home| !Path::new(home).exists()) {
                Some(home) => format!(
                    "{} is broken: the environment was made by the Python in {home}, which does not exist any more",
                    shown(candidate)
                ),
                None if root.is_dir() => {
                    format!("{} is broken: the environment has no bin/python", shown(candidate))
                }
                None => format!("{}: {} does not exist", shown(candidate), root.display()),
            }
        }
        (Err(_), None) => format!("{} does not exist", shown(candidate)),
    };
    Some(Wrong::new(words, again(candidate)))
}

/// Whether the service can run there.
fn judge(candidate: &Candidate, entry: &Entry, said: &Said) -> Result<(), Wrong> {
    let shown = shown(candidate);
    let name = entry.name.to_string_lossy();
    if let Some(words) = &said.unreadable {
        let words = format!("{shown} cannot read {name}: {words}");
        return Err(Wrong::new(words, "the user of the service must be able to read it"));
    }
    if let Some(syntax) = &said.syntax {
        let file = said.entry.as_deref().unwrap_or(&name);
        return Err(Wrong::new(
            format!(
                "{file} line {} is no Python {}: {}; {shown} was chosen",
                syntax.line, said.version, syntax.words
            ),
            "mend the line, or say which Python with `python = \"/path/to/python\"`",
        ));
    }
    let Some(first) = said.missing.first() else { return Ok(()) };
    let missing: Vec<String> = said.missing.iter().map(|import| import.name.clone()).collect();
    let from = match (first.line, entry.kind) {
        (0, _) => "which is what the service runs".to_owned(),
        (line, _) => {
            let file = said.entry.as_deref().unwrap_or(&name);
            format!("which {file} imports in line {line}")
        }
    };
    let more = match missing.len() {
        1 => String::new(),
        _ => format!(", nor {}", missing[1..].join(", ")),
    };
    Err(Wrong {
        words: format!("{shown} cannot find the module {}, {from}{more}", first.name),
        // The name of a module is mostly that of what has it.
        remedy: format!(
            "`{} {}`, or say which Python with `python = \"/path/to/python\"`",
            candidate.install,
            missing.join(" ")
        ),
        missing,
    })
}

fn choice(
    service: &Service,
    candidate: Candidate,
    said: &Said,
    surroundings: &Surroundings,
) -> Choice {
    let mut environment = BTreeMap::new();
    let mut set = |name: &str, value: OsString| environment.insert(OsString::from(name), value);
    if !surroundings.environment.contains_key(OsStr::new("PYTHONUNBUFFERED")) {
        // What it prints would wait in a buffer until it has ended.
        set("PYTHONUNBUFFERED", "1".into());
    }
    let virtual_root = (said.prefix != said.base).then(|| PathBuf::from(&said.prefix));
    if let Some(root) = &virtual_root {
        set("VIRTUAL_ENV", root.into());
    }
    if (candidate.root.is_some() || virtual_root.is_some())
        && let Some(bin) = candidate.program.parent()
    {
        set("PATH", path_with(bin, &surroundings.environment));
    }
    let mut warnings = pins::warnings(|name| said.pins.get(name).map(String::as_str));
    warnings.extend(said.guarded.iter().map(|import| {
        format!(
            "the module {} is not there; line {} imports it only under a condition",
            import.name, import.line
        )
    }));
    if surroundings.environment.contains_key(OsStr::new("PYTHONHOME")) {
        warnings.push("PYTHONHOME is set, which breaks virtual environments: unset it".to_owned());
    }
    let program = candidate.program;
    let mut command = vec![OsString::from(&program)];
    match &service.run {
        Run::Script { path, args } => {
            command.push(path.into());
            command.extend_from_slice(args);
        }
        Run::Module { name, args } => {
            command.push("-m".into());
            command.push(name.into());
            command.extend_from_slice(args);
        }
        // Its program is looked for in the PATH that stands above; `python` is the one that was proved.
        Run::Command(given) => {
            let is_python = given.first().is_some_and(|word| word == "python" || word == "python3");
            if !is_python {
                command.clear();
                command.extend(given.first().cloned());
            }
            command.extend_from_slice(super::arguments(&service.run));
        }
    }
    let version = format!("Python {}", said.version);
    Choice { program, version, why: candidate.why, warnings, environment, command }
}
