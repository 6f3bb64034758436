//! Which interpreter a service gets, with real environments.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use bowline_fleet::{
    interpreter::{Choice, Wrong, resolve},
    probe::Surroundings,
    spec::{Interpreter, Run, Service, Which},
};
use tempfile::TempDir;

/// A project in a directory of its own, with what surrounds the service in it.
struct Project {
    dir: TempDir,
    service: Service,
    environment: BTreeMap<OsString, OsString>,
}

impl Project {
    fn python(run: Run) -> Self {
        Self::of(run, Interpreter::Python(Which::Auto))
    }

    fn node(run: Run) -> Self {
        Self::of(run, Interpreter::Node(Which::Auto))
    }

    fn of(run: Run, interpreter: Interpreter) -> Self {
        let mut service = Service::new("bot", run);
        service.interpreter = interpreter;
        let environment = ["PATH", "HOME"]
            .into_iter()
            .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
            .collect();
        let dir = tempfile::Builder::new().prefix("a project ").tempdir().unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        Self { dir, service, environment }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn file(&self, below: &str, text: &str) -> &Self {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn program(&self, below: &str, text: &str) {
        self.file(below, text);
        fs::set_permissions(self.path(below), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Puts a directory before the others in `PATH`.
    fn path_first(&mut self, directory: &Path) {
        let mut path = OsString::from(directory);
        path.push(":");
        path.push(&self.environment[OsStr::new("PATH")]);
        self.environment.insert("PATH".into(), path);
    }

    /// A real virtual environment; modules are put into it as files.
    fn venv(&self, below: &str, modules: &[&str]) -> PathBuf {
        let root = self.path(below);
        let made =
            Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&root).status();
        assert!(made.unwrap().success());
        for module in modules {
            let file = packages(&root).join(format!("{module}.py"));
            fs::write(file, "raise SystemExit('it was run')").unwrap();
        }
        root
    }

    fn resolve(&self) -> Result<Choice, Wrong> {
        let surroundings = Surroundings {
            environment: self.environment.clone(),
            directory: Some(self.dir.path().to_owned()),
            user: None,
        };
        resolve(&self.service, &surroundings).map(|choice| choice.expect("one is wanted"))
    }

    fn run(&self, choice: &Choice) -> String {
        let output = Command::new(&choice.command[0])
            .args(&choice.command[1..])
            .current_dir(self.dir.path())
            .envs(&choice.environment)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Where an environment has what is installed.
fn packages(root: &Path) -> PathBuf {
    let lib = fs::read_dir(root.join("lib")).unwrap().next().unwrap().unwrap();
    lib.path().join("site-packages")
}

fn script(path: &str) -> Run {
    Run::Script { path: path.into(), args: Vec::new() }
}

fn module(name: &str) -> Run {
    Run::Module { name: name.into(), args: Vec::new() }
}

const SAYS_WHERE: &str = "import sys\nprint(sys.executable)\n";

#[test]
fn the_environment_beside_the_service_is_taken_by_its_own_binary() {
    for name in [".venv", "venv"] {
        let project = Project::python(script("bot.py"));
        project.file("bot.py", "import only_here\n");
        let root = project.venv(name, &["only_here"]);
        let choice = project.resolve().unwrap();
        assert_eq!(choice.program, root.join("bin/python"));
        assert!(choice.why.starts_with(name), "{}", choice.why);
        assert!(choice.version.starts_with("Python 3."), "{}", choice.version);
        assert_eq!(choice.environment[OsStr::new("PYTHONUNBUFFERED")], "1");
        assert_eq!(choice.environment[OsStr::new("VIRTUAL_ENV")], *root.as_os_str());
        let path = choice.environment[OsStr::new("PATH")].to_string_lossy().into_owned();
        assert!(path.starts_with(&*root.join("bin").to_string_lossy()), "{path}");
    }
}

#[test]
fn an_environment_further_up_counts_as_far_as_the_repository_goes() {
    let project = Project::python(script("bots/one/bot.py"));
    project.file("bots/one/bot.py", SAYS_WHERE);
    let root = project.venv(".venv", &[]);
    let choice = project.resolve().unwrap();
    assert_eq!(choice.program, root.join("bin/python"));
    assert_eq!(project.run(&choice).trim(), choice.program.to_string_lossy());

    let mut inner = Project::python(script("bot.py"));
    inner.dir = TempDir::new_in(project.path("bots")).unwrap();
    inner.file("bot.py", SAYS_WHERE);
    assert_eq!(inner.resolve().unwrap().program, root.join("bin/python"));
    // Another repository in this one has nothing to do with it.
    fs::create_dir(inner.path(".git")).unwrap();
    let choice = inner.resolve().unwrap();
    assert!(choice.why.starts_with("PATH"), "{}", choice.why);
}

#[test]
fn what_the_service_is_given_goes_before_what_is_beside_it() {
    let mut project = Project::python(script("bot.py"));
    project.file("bot.py", SAYS_WHERE);
    project.venv(".venv", &[]);
    let other = project.venv("elsewhere", &[]);
    project.service.environment.insert("VIRTUAL_ENV".into(), other.clone().into());
    let choice = project.resolve().unwrap();
    assert_eq!(choice.program, other.join("bin/python"));
    assert_eq!(choice.why, "VIRTUAL_ENV of the service");

    // From a file, too; and before both stands what the configuration names.
    project.service.environment.clear();
    project.file("bot.env", &format!("VIRTUAL_ENV=\"{}\"\n", other.display()));
    project.service.environment_files.push(project.path("bot.env"));
    assert_eq!(project.resolve().unwrap().program, other.join("bin/python"));
    project.service.interpreter = Interpreter::Python(Which::Path(".venv".into()));
    let choice = project.resolve().unwrap();
    assert_eq!(choice.program, project.path(".venv/bin/python"));

    // What Bowline's own shell has activated does not count.
    project.service.interpreter = Interpreter::Python(Which::Auto);
    project.service.environment_files.clear();
    project.environment.insert("VIRTUAL_ENV".into(), other.into());
    assert_eq!(project.resolve().unwrap().program, project.path(".venv/bin/python"));
}

#[test]
fn an_interpreter_that_is_a_link_is_taken_as_it_is() {
    let mut project = Project::python(script("bot.py"));
    project.file("bot.py", "import only_here");
    let root = project.venv("real", &["only_here"]);
    symlink(&root, project.path("linked")).unwrap();
    project.service.interpreter = Interpreter::Python(Which::Path("linked/bin/python".into()));
    let choice = project.resolve().unwrap();
    assert_eq!(choice.program, project.path("linked/bin/python"));
}

#[test]
fn a_missing_module_is_named_with_its_line_and_how_to_install_it() {
    let project = Project::python(script("bot.py"));
    project.file("bot.py", "import os\nimport sockets_of_nobody\nfrom nobody.at import home\n");
    project.venv(".venv", &[]);
    let wrong = project.resolve().unwrap_err();
    assert_eq!(wrong.missing, ["sockets_of_nobody", "nobody"]);
    assert!(wrong.words.contains("bot.py imports in line 2, nor nobody"), "{wrong}");
    let remedy = ".venv/bin/python -m pip install sockets_of_nobody";
    assert!(wrong.remedy.contains(remedy), "{wrong}");
}

#[test]
fn an_import_under_a_condition_only_warns() {
    let project = Project::python(script("bot.py"));
    project.file(
        "bot.py",
        "from typing import TYPE_CHECKING\ntry:\n    import maybe_one\nexcept ImportError:\n    pass\n\
         if TYPE_CHECKING:\n    import only_for_types\nif False:\n    import maybe_two\n\
         def later():\n    import at_use\nfrom . import relative\n",
    );
    let choice = project.resolve().unwrap();
    assert_eq!(choice.warnings.len(), 2, "{:?}", choice.warnings);
    assert!(choice.warnings[0].contains("maybe_one"), "{:?}", choice.warnings);

    // An entry that says itself where modules are is believed.
    project.file("bot.py", "import sys\nsys.path.insert(0, 'vendored')\nimport in_there\n");
    assert_eq!(project.resolve().unwrap().warnings.len(), 1);
    // What is only imported when it is run as a program is imported.
    project.file("bot.py", "if __name__ == '__main__':\n    import needed_then\n");
    assert_eq!(project.resolve().unwrap_err().missing, ["needed_then"]);
}

#[test]
fn nothing_of_the_users_is_executed_and_the_service_starts_once() {
    let project = Project::python(script("bot.py"));
    project.file("bot.py", "import beside\nopen('started', 'a').write('once\\n')\n");
    project.file("beside.py", "open('imported', 'a').write('once\\n')\n");
    // Named like what the proof itself imports.
    let alike = ["ast", "json", "importlib", "email", "zipfile", "csv"];
    for name in alike {
        project.file(&format!("{name}.py"), "open('hijacked', 'a').write('once')\n");
    }
    let choice = project.resolve().unwrap();
    for trace in ["started", "imported", "hijacked"] {
        assert!(!project.path(trace).exists(), "{trace}");
    }
    project.run(&choice);
    assert_eq!(fs::read_to_string(project.path("started")).unwrap(), "once\n");
}

#[test]
fn a_broken_environment_says_what_is_broken_and_is_not_passed_over() {
    let project = Project::python(script("bot.py"));
    project.file("bot.py", SAYS_WHERE);
    let root = project.venv(".venv", &[]);
    // As after an upgrade of the system.
    fs::remove_file(root.join("bin/python")).unwrap();
    symlink("/usr/bin/python3.4", root.join("bin/python")).unwrap();
    let wrong = project.resolve().unwrap_err();
    assert!(wrong.words.contains("a link to /usr/bin/python3.4, which does not exist"), "{wrong}");
    assert!(wrong.remedy.contains("python3 -m venv --clear"), "{wrong}");

    fs::remove_file(root.join("bin/python")).unwrap();
    fs::write(root.join("pyvenv.cfg"), "home = /opt/python-that-was/bin\n").unwrap();
    let wrong = project.resolve().unwrap_err();
    assert!(wrong.words.contains("the Python in /opt/python-that-was/bin"), "{wrong}");

    // There, but no Python.
    project.program(".venv/bin/python", "#!/bin/sh\necho no such luck >&2\nexit 3\n");
    let wrong = project.resolve().unwrap_err();
    assert!(wrong.words.contains("no such luck"), "{wrong}");
}

#[test]
fn an_entry_that_is_not_there_or_no_python_is_refused() {
    let project = Project::python(script("bot.py"));
    let wrong = project.resolve().unwrap_err();
    assert!(wrong.words.contains("bot.py cannot be read"), "{wrong}");
    project.file("bot.py", "print('fine')\nprint 'of another time'\n");
    let wrong = project.resolve().unwrap_err();
    assert!(wrong.words.contains("line 2 is no Python 3."), "{wrong}");

    let mut project = Project::python(module("package.bot"));
    assert_eq!(project.resolve().unwrap_err().missing, ["package"]);
    project.file("package/__init__.py", "raise SystemExit('it was run')\n");
    assert_eq!(project.resolve().unwrap_err().missing, ["package.bot"]);
    project.file("package/bot.py", "import nowhere_at_all\n");
    assert_eq!(project.resolve().unwrap_err().missing, ["nowhere_at_all"]);
    project.file("package/bot.py", "import package.other\n");
    project.resolve().unwrap();
    // What a server of apps loads is looked for as well.
    project.service.run = Run::Command(vec!["uvicorn".into(), "package.missing:app".into()]);
    assert_eq!(project.resolve().unwrap_err().missing, ["package.missing"]);
}

#[test]
fn a_command_gets_the_programs_of_the_environment() {
    let command = ["python", "-u", "bot.py"].map(OsString::from);
    let project = Project::python(Run::Command(command.to_vec()));
    project.file("bot.py", "import only_here\n");
    assert_eq!(project.resolve().unwrap_err().missing, ["only_here"]);
    let root = project.venv("venv", &["only_here"]);
    let choice = project.resolve().unwrap();
    let expected: [OsString; 3] = [root.join("bin/python").into(), "-u".into(), "bot.py".into()];
    assert_eq!(choice.command, expected);
}

#[test]
fn libraries_that_fail_together_are_warned_about() {
    let project = Project::python(script("bot.py"));
    project.file("bot.py", "pass\n");
    let root = project.venv(".venv", &[]);
    for (name, version) in [("webex_bot", "1.0.8"), ("websockets", "14.2")] {
        let info = packages(&root).join(format!("{name}-{version}.dist-info"));
        fs::create_dir(&info).unwrap();
        let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
        fs::write(info.join("METADATA"), text).unwrap();
    }
    let warnings = project.resolve().unwrap().warnings;
    assert!(matches!(&*warnings, [it] if it.contains("webex_bot before 1.0.9")), "{warnings:?}");
}

#[test]
fn uv_is_asked_where_its_lock_speaks_for_it() {
    let mut project = Project::python(script("bot.py"));
    project.file("bot.py", "import only_here\n").file("uv.lock", "version = 1\n");
    project.file("pyproject.toml", "[project]\nname = \"bot\"\nversion = \"1\"\n");
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/.venv/bin");
    assert!(real.join("uv").exists(), "`cargo xtask test` installs uv there");
    project.path_first(&real);
    // Not synchronized yet: uv has a Python, and what the project depends on is not in it.
    let wrong = project.resolve().unwrap_err();
    assert!(wrong.words.contains("uv's for"), "{wrong}");
    assert!(wrong.remedy.contains("uv sync"), "{wrong}");
    let made = Command::new(real.join("uv"))
        .args(["venv", "--offline", "--quiet"])
        .current_dir(project.dir.path())
        .status();
    assert!(made.unwrap().success());
    fs::write(packages(&project.path(".venv")).join("only_here.py"), "").unwrap();
    let choice = project.resolve().unwrap();
    assert_eq!(choice.program, project.path(".venv/bin/python"));

    let mut bare = Project::python(script("bot.py"));
    bare.file("bot.py", "").file("uv.lock", "");
    bare.environment.insert("PATH".into(), "/nowhere".into());
    let wrong = bare.resolve().unwrap_err();
    assert!(wrong.words.contains("no uv in PATH"), "{wrong}");
}

#[test]
fn poetry_is_asked_where_its_lock_speaks_for_it() {
    let mut project = Project::python(script("bot.py"));
    project.file("bot.py", "import only_here\n").file("poetry.lock", "");
    let root = project.venv("cache/bot-py3", &["only_here"]);
    project.program("bin/poetry", &format!("#!/bin/sh\necho '{}'\n", root.display()));
    project.path_first(&project.path("bin"));
    let choice = project.resolve().unwrap();
    assert_eq!(choice.program, root.join("bin/python"));
    project.program("bin/poetry", "#!/bin/sh\nexit 1\n");
    let wrong = project.resolve().unwrap_err();
    assert!(wrong.remedy.contains("poetry install"), "{wrong}");
}

#[test]
fn conda_environments_are_found_by_their_name() {
    let mut project = Project::python(script("bot.py"));
    project.file("bot.py", "").file("environment.yml", "name: bots\ndependencies: [python]\n");
    project.environment.insert("HOME".into(), project.path("home").into());
    let wrong = project.resolve().unwrap_err();
    assert!(wrong.remedy.contains("conda env create -f"), "{wrong}");
    let root = project.venv("conda/envs/bots", &[]);
    project.file("home/.conda/environments.txt", &format!("{}\n", root.display()));
    assert_eq!(project.resolve().unwrap().program, root.join("bin/python"));
}

#[test]
fn a_node_is_proved_by_its_version_and_by_what_is_installed() {
    let mut project = Project::node(script("server.mjs"));
    project.file(
        "server.mjs",
        "import 'left';\nimport fs from 'node:fs';\nfs.writeFileSync('ran', '');\n",
    );
    project.file(
        "package.json",
        r#"{"engines":{"node":">=18 <99"},"dependencies":{"left":"1","@at/home":"2"}}"#,
    );
    let wrong = project.resolve().unwrap_err();
    assert_eq!(wrong.missing, ["@at/home", "left"]);
    assert!(wrong.remedy.contains("npm install"), "{wrong}");
    project.file("node_modules/left/index.js", "").file("node_modules/@at/home/index.js", "");
    let choice = project.resolve().unwrap();
    assert!(choice.version.starts_with("Node "), "{choice}");
    assert_eq!(choice.command[1], "server.mjs");
    assert!(!project.path("ran").exists());

    project.file("server.mjs", "const = 3;\n");
    let wrong = project.resolve().unwrap_err();
    assert!(wrong.words.contains("SyntaxError"), "{wrong}");
    project.file("server.mjs", "").file("package.json", r#"{"engines":{"node":"^4"}}"#);
    let wrong = project.resolve().unwrap_err();
    assert!(wrong.words.contains("asks for Node ^4"), "{wrong}");

    // A version manager has the one that the project asks for.
    project.file("package.json", "{}").file(".nvmrc", "v12\n");
    project.environment.insert("NVM_DIR".into(), project.path("nvm").into());
    let wrong = project.resolve().unwrap_err();
    assert!(wrong.remedy.contains("nvm install 12"), "{wrong}");
    for version in ["v12.1.0", "v12.22.0", "v14.0.0"] {
        let below = format!("nvm/versions/node/{version}/bin/node");
        project.program(&below, &format!("#!/bin/sh\necho {version}\n"));
    }
    let choice = project.resolve().unwrap();
    assert_eq!(choice.program, project.path("nvm/versions/node/v12.22.0/bin/node"));
}
