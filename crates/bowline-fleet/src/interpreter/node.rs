//! Which Node, and whether it can.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use nodejs_semver::{Range, Version};
use serde_json::Value;

use super::{Choice, Wrong, arguments, directory, path_with, tree};
use crate::{
    probe::Surroundings,
    spec::{Run, Service, Which},
};

/// Files that say which version a project wants.
const VERSION_FILES: &[&str] = &[".nvmrc", ".node-version"];

/// What Node can read without being told how, as far as `--check` goes.
const CHECKED: &[&str] = &["js", "cjs", "mjs"];

/// An interpreter that something speaks for.
struct Candidate {
    program: PathBuf,
    why: String,
}

pub(super) fn resolve(
    service: &Service,
    which: &Which,
    surroundings: &Surroundings,
) -> Result<Choice, Wrong> {
    let start = directory(surroundings);
    let script = match &service.run {
        Run::Script { path, .. } => Some(start.join(path)),
        Run::Module { .. } | Run::Command(_) => None,
    };
    let beside = script.as_deref().and_then(Path::parent);
    let starts: Vec<&Path> = beside.into_iter().chain([&*start]).collect();
    let around = tree::upwards(&starts);
    let package = Package::nearest(&around)?;
    let candidate = choose(which, &around, package.as_ref(), surroundings)?;
    let version = version(&candidate, surroundings)?;
    if let Some(package) = &package {
        package.judge(&candidate, &version)?;
    }
    let mut command = vec![OsString::from(&candidate.program)];
    let mut environment = BTreeMap::new();
    let mut path_first = candidate.program.parent().map(Path::to_owned);
    match &service.run {
        Run::Script { path, .. } => {
            check(&start.join(path), &candidate, surroundings)?;
            command.push(path.into());
        }
        Run::Module { name, .. } => command.push(installed(&around, name)?.into()),
        Run::Command(given) => {
            command.clear();
            command.extend(given.first().cloned());
        }
    }
    command.extend_from_slice(arguments(&service.run));
    // Programs of the packages, as `npm run` has them.
    let bins = around.iter().map(|it| it.join("node_modules/.bin")).find(|it| it.is_dir());
    let mut path = surroundings.environment.clone();
    for directory in path_first.take().into_iter().chain(bins) {
        let with = path_with(&directory, &path);
        path.insert("PATH".into(), with.clone());
        environment.insert("PATH".into(), with);
    }
    let Candidate { program, why } = candidate;
    let version = format!("Node {version}");
    Ok(Choice { program, version, why, warnings: Vec::new(), environment, command })
}

/// The Node that the surroundings of the service speak for.
fn choose(
    which: &Which,
    around: &[PathBuf],
    package: Option<&Package>,
    surroundings: &Surroundings,
) -> Result<Candidate, Wrong> {
    let start = directory(surroundings);
    if let Which::Path(path) = which {
        let path = start.join(path);
        let program = if path.is_dir() { path.join("bin/node") } else { path };
        return Ok(Candidate { program, why: "`node` says so".to_owned() });
    }
    let home = surroundings.environment.get(OsStr::new("HOME")).map(PathBuf::from);
    let stores = Stores::of(home.as_deref(), surroundings);
    let wish = VERSION_FILES
        .iter()
        .find_map(|name| tree::nearest(around, name))
        .map(|(file, text)| (text.trim().trim_start_matches('v').to_owned(), file))
        .or_else(|| package.and_then(|it| Some((it.volta()?, it.file.clone()))));
    if let Some((wanted, file)) = &wish
        && let Some(program) = stores.best(wanted)
    {
        let why = format!("{wanted}, as {} asks", file.display());
        return Ok(Candidate { program, why });
    }
    let path = surroundings.environment.get(OsStr::new("PATH")).map(OsString::as_os_str);
    let Some(program) = tree::program(&["node", "nodejs"], &start, path) else {
        return Err(Wrong::new(
            "there is no Node: none in PATH",
            "install Node, or say which with `node = \"/path/to/node\"`",
        ));
    };
    let candidate = Candidate { program, why: "PATH".to_owned() };
    if let Some((wanted, file)) = &wish {
        let there = version(&candidate, surroundings)?;
        // `lts/iron` and the like are known to nvm alone.
        if Range::parse(wanted).is_ok_and(|range| !range.satisfies(&there)) {
            return Err(Wrong::new(
                format!(
                    "{} asks for Node {wanted}; in PATH is {there} ({}), and nvm, fnm and volta have no other",
                    file.display(),
                    candidate.program.display()
                ),
                format!("run `nvm install {wanted}`, or say which with `node = \"/path/to/node\"`"),
            ));
        }
    }
    Ok(candidate)
}

/// Where version managers keep what they have installed: `…/v20.1.0/bin/node`.
struct Stores(Vec<(PathBuf, &'static str)>);

impl Stores {
    fn of(home: Option<&Path>, surroundings: &Surroundings) -> Self {
        let place = |variable: &str, below: &str| {
            let given = surroundings.environment.get(OsStr::new(variable));
            given.map(PathBuf::from).or_else(|| Some(home?.join(below)))
        };
        let all = [
            (place("NVM_DIR", ".nvm").map(|it| it.join("versions/node")), "bin/node"),
            (
                place("FNM_DIR", ".local/share/fnm").map(|it| it.join("node-versions")),
                "installation/bin/node",
            ),
            (place("VOLTA_HOME", ".volta").map(|it| it.join("tools/image/node")), "bin/node"),
        ];
        Self(all.into_iter().filter_map(|(place, below)| Some((place?, below))).collect())
    }

    /// The newest version that satisfies a wish.
    fn best(&self, wanted: &str) -> Option<PathBuf> {
        let range = Range::parse(wanted).ok()?;
        let mut found: Vec<(Version, PathBuf)> = Vec::new();
        for (place, below) in &self.0 {
            for entry in fs::read_dir(place).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let Ok(version) = Version::parse(name.trim_start_matches('v')) else { continue };
                let program = entry.path().join(below);
                if range.satisfies(&version) && program.is_file() {
                    found.push((version, program));
                }
            }
        }
        found.sort();
        found.pop().map(|(_, program)| program)
    }
}

/// The `package.json` of the project.
struct Package {
    file: PathBuf,
    said: Value,
}

impl Package {
    fn nearest(around: &[PathBuf]) -> Result<Option<Self>, Wrong> {
        let Some((file, text)) = tree::nearest(around, "package.json") else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(said) => Ok(Some(Self { file, said })),
            Err(error) => {
                Err(Wrong::new(format!("{} is no JSON: {error}", file.display()), "mend the file"))
            }
        }
    }

    fn volta(&self) -> Option<String> {
        self.said.get("volta")?.get("node")?.as_str().map(str::to_owned)
    }

    /// Whether this Node may run the project, and whether all that it depends on is installed.
    fn judge(&self, candidate: &Candidate, version: &Version) -> Result<(), Wrong> {
        let file = self.file.display();
        let wanted = self.said.get("engines").and_then(|it| it.get("node")).and_then(Value::as_str);
        if let Some(wanted) = wanted
            && Range::parse(wanted).is_ok_and(|range| !range.satisfies(version))
        {
            return Err(Wrong::new(
                format!(
                    "{file} asks for Node {wanted} (engines); {} is {version} ({})",
                    candidate.program.display(),
                    candidate.why
                ),
                "say which with `node = \"/path/to/node\"`, or with a file .nvmrc",
            ));
        }
        let Some(dependencies) = self.said.get("dependencies").and_then(Value::as_object) else {
            return Ok(());
        };
        let project = self.file.parent().unwrap_or(Path::new("/"));
        let is_there = |name: &str| {
            let place = Path::new("node_modules").join(name);
            project.ancestors().any(|directory| directory.join(&place).exists())
        };
        // Plug'n'Play has no node_modules.
        if project.join(".pnp.cjs").exists() {
            return Ok(());
        }
        let missing: Vec<String> =
            dependencies.keys().filter(|name| !is_there(name)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let how = match () {
            () if project.join("pnpm-lock.yaml").exists() => "pnpm install",
            () if project.join("yarn.lock").exists() => "yarn install",
            () if project.join("package-lock.json").exists() => "npm ci",
            () => "npm install",
        };
        Err(Wrong {
            words: format!("{file} depends on {}, not installed", missing.join(", ")),
            remedy: format!("run `{how}` in {}", project.display()),
            missing,
        })
    }
}

/// Runs the interpreter for its version.
fn version(candidate: &Candidate, surroundings: &Surroundings) -> Result<Version, Wrong> {
    let shown = format!("{} ({})", candidate.program.display(), candidate.why);
    let remedy = "say which with `node = \"/path/to/node\"`";
    let said = super::run(&candidate.program, &["--version".into()], surroundings)
        .map_err(|words| Wrong::new(format!("{shown} does not run: {words}"), remedy))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    Version::parse(text.trim().trim_start_matches('v'))
        .map_err(|_| Wrong::new(format!("{shown} is no Node: {}", said.last_words()), remedy))
}

/// Whether the entry is a program; nothing of it is executed.
fn check(entry: &Path, candidate: &Candidate, surroundings: &Surroundings) -> Result<(), Wrong> {
    let shown = entry.display();
    if let Err(error) = fs::metadata(entry) {
        return Err(Wrong::new(
            format!("the script {shown} cannot be read: {error}"),
            "`script` is a path from `directory`",
        ));
    }
    let extension = entry.extension().and_then(OsStr::to_str).unwrap_or_default();
    if !CHECKED.contains(&extension) {
        return Ok(());
    }
    let said = super::run(&candidate.program, &["--check".into(), entry.into()], surroundings)
        .map_err(|words| {
            Wrong::new(format!("{shown} cannot be checked: {words}"), "try it by hand")
        })?;
    let text = String::from_utf8_lossy(&said.stderr);
    match text.lines().find(|line| line.contains("SyntaxError")) {
        None => Ok(()),
        Some(error) => {
            let place = text.lines().next().unwrap_or_default();
            Err(Wrong::new(format!("{place}: {}", error.trim()), "mend the line"))
        }
    }
}

/// The program of an installed package.
fn installed(around: &[PathBuf], name: &str) -> Result<PathBuf, Wrong> {
    let place = Path::new("node_modules/.bin").join(name);
    around.iter().map(|it| it.join(&place)).find(|it| it.exists()).ok_or_else(|| Wrong {
        words: format!("no package with a program {name} is installed around the service"),
        missing: vec![name.to_owned()],
        remedy: format!("run `npm install {name}`"),
    })
}
