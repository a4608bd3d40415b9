//! `cargo xtask images`: an OCI archive for each program, from scratch and without a container engine.
//!
//! In an image are the program, the dynamic loader and the libraries that `ldd` names, two lines of passwd and group, and the
//! system's authorities where the program speaks TLS with strangers. Nothing else: no shell, no package manager, nothing writable.

mod oci;
mod sbom;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cache, step};

use self::oci::{Settings, Tree};

/// Where images are meant to be found; a chart's values name another.
const REGISTRY: &str = "registry.example.com/opes";

const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An image of ours.
struct Recipe {
    name: &'static str,
    /// Cargo's package.
    package: &'static str,
    /// In the target folder.
    program: &'static str,
    arguments: &'static [&'static str],
    what: &'static str,
}

const fn service(name: &'static str, what: &'static str) -> Recipe {
    Recipe {
        name,
        package: name,
        program: name,
        arguments: &[],
        what,
    }
}

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "opes-edge",
        package: "opes",
        program: "opes",
        arguments: &["edge"],
        what: "The edge: SMTP, submission and LMTP, with rules that call services",
    },
    service(
        "opes-operator",
        "The operator: rules and pools as custom resources",
    ),
    service(
        "opes-access-control",
        "Callout service: who may send what to whom",
    ),
    service(
        "opes-attachment-links",
        "Callout service: attachments to links",
    ),
    service(
        "opes-content-block",
        "Callout service: a text block in each mail",
    ),
    service("opes-milter-bridge", "Callout service: any milter"),
    service("opes-mta-hooks", "Callout service: any MTA hook"),
    service("opes-normalizer", "Callout service: well-formed mail"),
    service(
        "opes-reporting",
        "Callout service: what became of each mail",
    ),
    service("opes-rerouting", "Callout service: other recipients"),
    service("opes-secure-mail", "Callout service: OpenPGP, S/MIME, DKIM"),
    service(
        "opes-security-filter",
        "Callout service: malware and forbidden attachments",
    ),
    service("opes-spam-filter", "Callout service: spam"),
];

/// What the whole-node tests run.
pub(crate) const FOR_TESTS: &[&str] = &[
    "opes-edge",
    "opes-operator",
    "opes-security-filter",
    STAMPER.name,
];

/// Of the tests, not of the project: somebody's own callout service.
const STAMPER: Recipe = Recipe {
    name: "opes-slow-stamp",
    package: "opes-examples",
    program: "slow-stamp",
    arguments: &[],
    what: "Example of a callout service: takes its time, and stamps",
};

/// Of the test bed, not of the project: Debian's busybox, which also does nothing when asked to (`pause`).
const BUSYBOX: &str = "/bin/busybox";

/// `cargo xtask images`: builds the programs and then their images; all of them if none is named. With `--node` those that a node
/// of the tests needs for itself.
pub(crate) fn command(arguments: &[&str]) -> Result<()> {
    let target = &cache::target_folder()?;
    let mut out = target.join("images");
    let (mut names, mut build) = (Vec::new(), true);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match *word {
            "--no-build" => build = false,
            "--node" => return make_for_node(&out),
            "--out" => out = words.next().context("--out needs a folder")?.into(),
            name => names.push(name),
        }
    }
    if names.is_empty() {
        names = RECIPES.iter().map(|recipe| recipe.name).collect();
    }
    let packages = packages(&names)?;
    if build {
        let mut arguments = vec!["build", "--release", "--locked"];
        arguments.extend(packages.iter().flat_map(|package| ["-p", package]));
        step::cargo("release build", target, &arguments)?;
    }
    make(target, &out, &names)
}

/// Cargo's packages that bring the programs of these images.
pub(crate) fn packages(names: &[&str]) -> Result<Vec<&'static str>> {
    names.iter().map(|name| Ok(recipe(name)?.package)).collect()
}

/// Images of programs that are built already, as `NAME.tar` in `out`, with a list of what is in each.
pub(crate) fn make(target: &Path, out: &Path, names: &[&str]) -> Result<()> {
    step::timed("images", || {
        fs::create_dir_all(out)?;
        for name in names {
            let recipe = recipe(name)?;
            let program = target.join("release").join(recipe.program);
            let sbom = sbom::of(target, recipe)?;
            let settings = recipe.settings(&sbom)?;
            let tree = recipe.tree(&program)?;
            write(out, name, &oci::image(&tree, &settings)?)?;
            fs::write(out.join(format!("{name}.spdx.json")), sbom)?;
        }
        Ok(())
    })
}

/// The images that a node needs for itself: `pause`, and `busybox` to look around with.
pub(crate) fn make_for_node(out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    for (name, entrypoint) in [
        ("pause", &["/usr/bin/busybox", "sleep", "infinity"][..]),
        ("busybox", &["/usr/bin/busybox"]),
    ] {
        let mut tree = with_libraries(Path::new(BUSYBOX))?;
        tree.file(
            "usr/bin/busybox",
            0o755,
            fs::read(BUSYBOX).context(BUSYBOX)?,
        );
        let settings = Settings {
            entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            reference: format!("{REGISTRY}/{name}:test"),
            time: 0,
        };
        write(out, name, &oci::image(&tree, &settings)?)?;
    }
    Ok(())
}

fn write(out: &Path, name: &str, image: &oci::Image) -> Result<()> {
    let path = out.join(format!("{name}.tar"));
    let aside = path.with_extension("new");
    fs::write(&aside, &image.archive).with_context(|| aside.display().to_string())?;
    fs::rename(&aside, &path)?;
    fs::write(out.join(format!("{name}.digest")), &image.digest)?;
    let size = image.archive.len() >> 10;
    println!("{} {size} KiB {}", image.digest, path.display());
    Ok(())
}

fn recipe(name: &str) -> Result<&'static Recipe> {
    let found = RECIPES
        .iter()
        .chain([&STAMPER])
        .find(|recipe| recipe.name == name);
    found.with_context(|| {
        let names: Vec<_> = RECIPES.iter().map(|recipe| recipe.name).collect();
        format!("no image `{name}`; there are {}", names.join(", "))
    })
}

/// What every image has.
fn base() -> Tree {
    let user = oci::USER;
    let mut tree = Tree::default();
    let passwd = format!("root:x:0:0:root:/:/none\nopes:x:{user}:{user}:opes:/:/none\n");
    tree.file("etc/passwd", 0o644, passwd.into_bytes());
    let group = format!("root:x:0:\nopes:x:{user}:\n");
    tree.file("etc/group", 0o644, group.into_bytes());
    tree.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n".to_vec());
    // Volumes are mounted here if somebody wants to write.
    tree.folder("tmp", 0o755, 0);
    tree
}

/// [`base`] with what the program is linked to at run time.
fn with_libraries(program: &Path) -> Result<Tree> {
    let mut tree = base();
    for library in libraries(program)? {
        let content = fs::read(&library).with_context(|| library.display().to_string())?;
        let path = library.strip_prefix("/").unwrap_or(&library);
        let path = path.to_str().context("a path that is no text")?;
        tree.file(path, 0o755, content);
    }
    Ok(tree)
}

// === impl Recipe ===

impl Recipe {
    fn tree(&self, program: &Path) -> Result<Tree> {
        let mut tree = with_libraries(program)?;
        tree.file(
            &format!("usr/bin/{}", self.program),
            0o755,
            stripped(program)?,
        );
        let authorities = fs::read(AUTHORITIES)
            .with_context(|| format!("{AUTHORITIES}; `apt-get install ca-certificates`"))?;
        tree.file(AUTHORITIES.trim_start_matches('/'), 0o644, authorities);
        Ok(tree)
    }

    fn settings(&self, sbom: &[u8]) -> Result<Settings> {
        let version = env!("CARGO_PKG_VERSION");
        let time = time()?;
        let entrypoint = std::iter::once(format!("/usr/bin/{}", self.program));
        let arguments = self.arguments.iter().map(|&argument| argument.to_owned());
        let labels: BTreeMap<String, String> = [
            ("title", self.name),
            ("description", self.what),
            ("version", version),
            ("licenses", env!("CARGO_PKG_LICENSE")),
            ("created", &oci::timestamp(time)),
            ("vendor", "OPES"),
        ]
        .into_iter()
        .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value.to_owned()))
        .collect();
        let mut annotations = labels.clone();
        annotations.insert("dev.opes.sbom.digest".to_owned(), oci::digest(sbom)?);
        Ok(Settings {
            entrypoint: entrypoint.chain(arguments).collect(),
            labels,
            annotations,
            reference: format!("{REGISTRY}/{}:{version}", self.name),
            time,
        })
    }
}

/// `SOURCE_DATE_EPOCH`, or 0.
fn time() -> Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text
            .parse()
            .context("SOURCE_DATE_EPOCH: seconds since 1970"),
        Err(_) => Ok(0),
    }
}

/// Loader and libraries, by the paths under which the loader looks for them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "ldd {}: {}; is it built?",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        bail!("{}: {}", program.display(), line.trim());
    }
    Ok(paths(&text))
}

/// `name => /path (0x…)` and `/path (0x…)`; the kernel's own has no path.
fn paths(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| {
            let line = line.rsplit("=> ").next()?.trim();
            let path = line.split(" (0x").next()?;
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

/// The program without symbols and debug information, which stay in the target folder.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let aside = program.with_extension("stripped");
    let mut strip = Command::new("strip");
    strip.arg("--strip-all").arg("-o").arg(&aside).arg(program);
    let status = strip
        .status()
        .context("strip; `apt-get install binutils`")?;
    ensure!(status.success(), "{strip:?}: {status}");
    let octets = fs::read(&aside)?;
    fs::remove_file(&aside)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_says_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(paths(text), expected.map(PathBuf::from));
        assert_eq!(paths("\tstatically linked\n"), [] as [PathBuf; 0]);
    }

    #[test]
    fn an_image_of_a_real_program_is_the_same_twice() -> Result<()> {
        let program = std::env::current_exe()?;
        let recipe = recipe("opes-operator")?;
        let make = || oci::image(&recipe.tree(&program)?, &recipe.settings(b"{}")?);
        let (one, two) = (make()?, make()?);
        assert_eq!(one.digest, two.digest);
        assert!(one.archive == two.archive, "archives differ");
        Ok(())
    }

    #[test]
    fn names_are_unique_and_a_wrong_one_gets_a_list() {
        let names: std::collections::BTreeSet<_> = RECIPES.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), RECIPES.len());
        let error = recipe("opes").err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("opes-edge")));
        assert!(packages(FOR_TESTS).is_ok());
    }
}
