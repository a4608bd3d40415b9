//! `cargo xtask images`: an OCI archive for each program, from scratch and without a container engine, for one platform or several.
//!
//! In an image are the program, the dynamic loader and the libraries that the program needs, two lines of passwd and group, and the
//! system's authorities where the program speaks TLS with strangers. Nothing else: no shell, no package manager, nothing writable.

mod filter;
mod libraries;
mod node;
mod oci;
mod platform;
mod recipe;
mod sbom;
mod sign;
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};

use crate::{cache, step};

use self::libraries::Library;
use self::oci::{Image, Part, Settings};
use self::platform::Platform;
use self::recipe::{RECIPES, Recipe, STAMPER};
use self::sign::Key;
use self::tree::Tree;

pub(crate) use self::node::make as make_for_node;

/// Where images are meant to be found, if nobody says so.
const REGISTRY: &str = "registry.example.com/opes";

const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What the whole-node tests run.
pub(crate) const FOR_TESTS: &[&str] = &[
    "opes-edge",
    "opes-operator",
    "opes-security-filter",
    STAMPER.name,
];

/// What to make.
struct Order {
    recipes: Vec<&'static Recipe>,
    platforms: Vec<&'static Platform>,
    build: bool,
    out: PathBuf,
    /// Before the images' names.
    registry: String,
    key: Option<Key>,
}

/// `cargo xtask images`: builds the programs and then their images; all of them if none is named. With `--node` those that a node
/// of the tests needs for itself.
pub(crate) fn command(arguments: &[&str]) -> Result<()> {
    let target = &cache::target_folder()?;
    let out = target.join("images");
    if let ["--node"] = arguments {
        return make_for_node(&out);
    }
    let order = Order::read(arguments, out)?;
    if order.build {
        let packages: BTreeSet<_> = order.recipes.iter().map(|it| it.package).collect();
        let packages: Vec<_> = packages.into_iter().collect();
        let secret = order.key.as_ref().map(Key::variables).unwrap_or_default();
        for platform in &order.platforms {
            platform.build(target, &packages, &secret)?;
        }
    }
    order.make(target)
}

/// Images of programs that are built already, for this machine, as `NAME.tar` in `out`, with a list of what is in each.
pub(crate) fn make(target: &Path, out: &Path, names: &[&str]) -> Result<()> {
    Order::read(names, out.to_owned())?.make(target)
}

// === impl Order ===

impl Order {
    fn read(arguments: &[&str], out: PathBuf) -> Result<Self> {
        let mut order = Self {
            recipes: Vec::new(),
            platforms: Vec::new(),
            build: true,
            out,
            registry: REGISTRY.to_owned(),
            key: None,
        };
        let mut words = arguments.iter();
        while let Some(&word) = words.next() {
            let mut value = |what| words.next().with_context(|| format!("{word} needs {what}"));
            match word {
                "--no-build" => order.build = false,
                "--out" => order.out = value("a folder")?.into(),
                "--registry" => {
                    (*value("a host and a path")?).clone_into(&mut order.registry);
                }
                "--sign" => order.key = Some(Key::new(value("a key")?)?),
                "--target" => order.add_platform(value("a target of Rust")?)?,
                name => order.recipes.push(recipe::named(name)?),
            }
        }
        if order.recipes.is_empty() {
            order.recipes = RECIPES.iter().collect();
        }
        if order.platforms.is_empty() {
            order.platforms.push(platform::host()?);
        }
        Ok(order)
    }

    fn add_platform(&mut self, target: &str) -> Result<()> {
        let platform = platform::named(target)?;
        let twice = self.platforms.iter().any(|it| it.target == target);
        ensure!(!twice, "--target {target} twice");
        self.platforms.push(platform);
        // The order in which they are named makes no other image.
        self.platforms.sort_by_key(|it| it.architecture);
        Ok(())
    }

    fn make(&self, target: &Path) -> Result<()> {
        step::timed("images", || {
            fs::create_dir_all(&self.out)?;
            let mut values = Map::new();
            for recipe in &self.recipes {
                let digest = self.image(target, recipe)?;
                if let Some(path) = recipe.value() {
                    set(&mut values, &path, digest.into());
                }
            }
            let registry = self.registry.clone().into();
            set(&mut values, &["global", "imageRegistry"], registry);
            let values = serde_json::to_string_pretty(&values)? + "\n";
            fs::write(self.out.join("values.yaml"), values)?;
            if self.key.is_none() {
                println!("not signed; `--sign KEY` does");
            }
            Ok(())
        })
    }

    /// Writes an image and all that belongs to it, and returns its digest.
    fn image(&self, target: &Path, recipe: &Recipe) -> Result<String> {
        let mut parts = Vec::new();
        for platform in &self.platforms {
            let part = recipe.part(target, platform)?;
            let file = match self.platforms.len() {
                1 => format!("{}.spdx.json", recipe.name),
                _ => format!("{}.{}.spdx.json", recipe.name, platform.architecture),
            };
            fs::write(
                self.out.join(file),
                part.sbom.as_deref().unwrap_or_default(),
            )?;
            parts.push(part);
        }
        let settings = recipe.settings(&self.registry)?;
        let image = write_image(&self.out, recipe.name, &parts, &settings)?;
        let signatures = self.out.join(format!("{}.sig.tar", recipe.name));
        if let Some(key) = &self.key {
            let aside = signatures.with_extension("payload");
            let archive = sign::archive(key, &image, &settings, &aside)?;
            write(&signatures, &archive)?;
        } else if signatures.exists() {
            // They would be of another image.
            fs::remove_file(&signatures)?;
        }
        Ok(image.digest().to_owned())
    }
}

// === impl Recipe ===

impl Recipe {
    fn part(&self, target: &Path, platform: &'static Platform) -> Result<Part> {
        let program = platform.programs(target).join(self.program);
        let libraries = libraries::of(&program, platform)?;
        let mut tree = with_libraries(&libraries);
        let stripped = stripped(&program, platform)?;
        tree.file(&format!("usr/bin/{}", self.program), 0o755, stripped);
        let authorities = fs::read(AUTHORITIES)
            .with_context(|| format!("{AUTHORITIES}; `apt-get install ca-certificates`"))?;
        tree.file(AUTHORITIES.trim_start_matches('/'), 0o644, authorities);
        let sbom = Some(sbom::of(target, self, platform, &libraries)?);
        Ok(Part {
            platform,
            tree,
            sbom,
        })
    }
}

/// Writes `NAME.tar` and `NAME.digest`.
fn write_image(out: &Path, name: &str, parts: &[Part], settings: &Settings) -> Result<Image> {
    let image = Image::new(parts, settings)?;
    let archive = image.archive(settings)?;
    let path = out.join(format!("{name}.tar"));
    write(&path, &archive)?;
    fs::write(out.join(format!("{name}.digest")), image.digest())?;
    let size = archive.len() >> 10;
    println!("{} {size} KiB {}", image.digest(), path.display());
    Ok(image)
}

fn write(path: &Path, octets: &[u8]) -> Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, octets).with_context(|| aside.display().to_string())?;
    Ok(fs::rename(&aside, path)?)
}

/// Sets a value deep inside.
fn set(values: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [last] => {
            values.insert((*last).to_owned(), value);
        }
        [first, rest @ ..] => {
            let inner = values
                .entry(*first)
                .or_insert_with(|| Value::Object(Map::new()));
            if let Some(inner) = inner.as_object_mut() {
                set(inner, rest, value);
            }
        }
    }
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
fn with_libraries(libraries: &[Library]) -> Tree {
    let mut tree = base();
    for library in libraries {
        tree.file(&library.path, 0o755, library.content.clone());
    }
    tree
}

/// The program without symbols and debug information, which stay in the target folder.
fn stripped(program: &Path, platform: &Platform) -> Result<Vec<u8>> {
    let aside = program.with_extension("stripped");
    let mut strip = Command::new(platform.tool("strip"));
    strip.arg("--strip-all").arg("-o").arg(&aside).arg(program);
    let advice = || format!("strip; `apt-get install {}`", platform.binutils());
    let status = strip.status().with_context(advice)?;
    ensure!(status.success(), "{strip:?}: {status}");
    let octets = fs::read(&aside)?;
    fs::remove_file(&aside)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(words: &[&str]) -> Result<Order> {
        Order::read(words, PathBuf::from("images"))
    }

    #[test]
    fn images_are_for_this_machine_unless_platforms_are_named() -> Result<()> {
        let all = order(&[])?;
        assert_eq!(all.recipes.len(), RECIPES.len());
        assert_eq!(all.platforms.len(), 1);
        let (arm, intel) = ("aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu");
        let two = order(&["--target", arm, "--target", intel, "opes-edge"])?;
        let architectures: Vec<_> = two.platforms.iter().map(|it| it.architecture).collect();
        assert_eq!(architectures, ["amd64", "arm64"]);
        assert!(order(&["--target", arm, "--target", arm]).is_err());
        assert!(order(&["--target"]).is_err());
        assert!(order(FOR_TESTS).is_ok());
        Ok(())
    }

    #[test]
    fn values_name_registry_and_digests_as_the_chart_has_them() -> Result<()> {
        let mut values = Map::new();
        for name in ["opes-edge", "opes-operator", "opes-spam-filter"] {
            let path = recipe::named(name)?.value().context("no value")?;
            set(&mut values, &path, name.into());
        }
        assert!(STAMPER.value().is_none());
        let values = Value::Object(values);
        assert_eq!(values["edge"]["image"]["digest"], "opes-edge");
        assert_eq!(values["operator"]["image"]["digest"], "opes-operator");
        assert_eq!(
            values["pools"]["digests"]["spam-filter"],
            "opes-spam-filter"
        );
        Ok(())
    }
}
