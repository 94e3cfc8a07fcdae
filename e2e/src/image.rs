// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Container images without a container engine: one binary, what it needs to run, nothing else.
//!
//! Guarantees: the same inputs give the same bytes (sorted entries, no times, no owners), so an image's digest says what is in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

const USER: u32 = 65532;
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
const ZONES: &str = "usr/share/zoneinfo";

/// What goes into an image.
#[derive(Debug)]
pub struct Image {
    binary: PathBuf,
    entrypoint: String,
    labels: BTreeMap<String, String>,
    furnished: bool,
}

/// One thing in the file system of an image.
enum Entry {
    Folder { mode: u32 },
    File { content: Vec<u8>, mode: u32 },
}

impl Image {
    /// An image whose process is `binary`, found at the absolute path `entrypoint` in it.
    pub fn new(binary: impl Into<PathBuf>, entrypoint: &str) -> Self {
        Self {
            binary: binary.into(),
            entrypoint: entrypoint.to_owned(),
            labels: BTreeMap::new(),
            furnished: false,
        }
    }

    /// The image of one of the product's binaries.
    pub fn of_product(binary: &Path) -> Result<Self> {
        let name = binary.file_name().context("the binary has no name")?;
        let name = name.to_string_lossy();
        Ok(Self::new(binary, &format!("/usr/local/bin/{name}"))
            .furnished()
            .label("org.opencontainers.image.title", &name)
            .label("org.opencontainers.image.version", env!("CARGO_PKG_VERSION"))
            .label("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE"))
            .label("org.opencontainers.image.vendor", env!("CARGO_PKG_AUTHORS")))
    }

    /// Adds a label, which is also an annotation of the manifest.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds what a server expects to find: users, certificate authorities, time zones, a folder for temporary files.
    #[must_use]
    pub fn furnished(mut self) -> Self {
        self.furnished = true;
        self
    }

    /// Writes an OCI image layout as a folder.
    pub fn write_layout(&self, folder: &Path) -> Result<()> {
        for (name, content) in self.layout()? {
            let path = folder.join(name);
            let parent = path.parent().context("a layout's file lies in its folder")?;
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// Writes an OCI image layout as a tarball.
    pub fn write_tarball(&self, file: &Path) -> Result<()> {
        let files = self.layout()?.into_iter();
        let entries = files.map(|(name, content)| (name, Entry::File { content, mode: 0o644 }));
        let tarball = tarball(&with_folders(entries.collect()))?;
        fs::write(file, tarball).with_context(|| format!("write {}", file.display()))
    }

    /// The files of the layout: blobs, index and marker.
    fn layout(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let layer = tarball(&with_folders(self.entries()?))?;
        let compressed = compress(&layer)?;
        let config = serde_json::to_vec(&self.config(&digest(&layer))).context("write the config")?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &compressed)],
            "annotations": self.labels,
        });
        let manifest = serde_json::to_vec(&manifest).context("write the manifest")?;
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let mut files = BTreeMap::from([
            ("index.json".to_owned(), serde_json::to_vec(&index).context("write the index")?),
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ]);
        for blob in [compressed, config, manifest] {
            files.insert(format!("blobs/{}", digest(&blob).replace(':', "/")), blob);
        }
        Ok(files)
    }

    fn config(&self, layer: &str) -> Value {
        json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": format!("{USER}:{USER}"),
                "Entrypoint": [self.entrypoint],
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", format!("SSL_CERT_FILE=/{CERTIFICATES}")],
                "WorkingDir": "/",
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        })
    }

    fn entries(&self) -> Result<BTreeMap<String, Entry>> {
        let mut entries = BTreeMap::new();
        let entrypoint = self.entrypoint.trim_start_matches('/');
        add_file(&mut entries, entrypoint, &self.binary, 0o755)?;
        for library in libraries(&self.binary)? {
            let name = library.to_string_lossy().trim_start_matches('/').to_owned();
            add_file(&mut entries, &name, &library, 0o755)?;
        }
        if self.furnished {
            furnish(&mut entries)?;
        }
        Ok(entries)
    }
}

fn furnish(entries: &mut BTreeMap<String, Entry>) -> Result<()> {
    let text = |content: String| Entry::File { content: content.into_bytes(), mode: 0o644 };
    let users = format!("root:x:0:0:root:/:/none\nstowage:x:{USER}:{USER}:stowage:/:/none\n");
    entries.insert("etc/passwd".to_owned(), text(users));
    entries.insert("etc/group".to_owned(), text(format!("root:x:0:\nstowage:x:{USER}:\n")));
    entries.insert("etc/nsswitch.conf".to_owned(), text("hosts: files dns\n".to_owned()));
    entries.insert("tmp".to_owned(), Entry::Folder { mode: 0o1777 });
    add_file(entries, CERTIFICATES, &Path::new("/").join(CERTIFICATES), 0o644)?;
    add_zones(entries, &Path::new("/").join(ZONES), ZONES)
}

fn add_file(entries: &mut BTreeMap<String, Entry>, name: &str, from: &Path, mode: u32) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    entries.insert(name.to_owned(), Entry::File { content, mode });
    Ok(())
}

/// The time zones, without the two other renderings (`posix`, `right`) that Debian keeps beside them.
fn add_zones(entries: &mut BTreeMap<String, Entry>, folder: &Path, name: &str) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let name = format!("{name}/{file}");
        if entry.path().is_file() {
            add_file(entries, &name, &entry.path(), 0o644)?;
        } else if file != "posix" && file != "right" {
            add_zones(entries, &entry.path(), &name)?;
        }
    }
    Ok(())
}

/// The shared libraries that a binary loads, its loader among them; none for a static one.
fn libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    let ldd = Command::new("ldd").arg(binary).output().context("run ldd")?;
    let text = String::from_utf8_lossy(&ldd.stdout);
    if text.contains("not found") {
        bail!("{} lacks a library: {text}", binary.display());
    }
    Ok(parse_libraries(&text))
}

fn parse_libraries(ldd: &str) -> Vec<PathBuf> {
    let words = ldd.split_ascii_whitespace();
    words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Adds the folders that the entries lie in.
fn with_folders(mut entries: BTreeMap<String, Entry>) -> BTreeMap<String, Entry> {
    let names: Vec<String> = entries.keys().cloned().collect();
    for name in names {
        for ancestor in Path::new(&name).ancestors().skip(1) {
            let ancestor = ancestor.to_string_lossy();
            if !ancestor.is_empty() {
                entries.entry(ancestor.into_owned()).or_insert(Entry::Folder { mode: 0o755 });
            }
        }
    }
    entries
}

fn tarball(entries: &BTreeMap<String, Entry>) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (name, entry) in entries {
        let (kind, mode, content): (_, _, &[u8]) = match entry {
            Entry::Folder { mode } => (EntryType::Directory, *mode, &[]),
            Entry::File { content, mode } => (EntryType::Regular, *mode, content),
        };
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        let name = if kind.is_dir() { format!("{name}/") } else { name.clone() };
        builder.append_data(&mut header, &name, content).with_context(|| format!("add {name}"))?;
    }
    builder.into_inner().context("finish the tarball")
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::default());
    encoder.write_all(bytes).context("compress")?;
    encoder.finish().context("compress")
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// The architecture this was built for, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_a_binary_are_read_from_what_ldd_prints() {
        let printed = "\tlinux-vdso.so.1 (0x7ffd)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f00)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x7f01)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse_libraries(printed), expected.map(PathBuf::from));
        assert!(parse_libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes() {
        let image = || Image::new("/bin/true", "/true").furnished().label("a", "b");
        assert_eq!(image().layout().unwrap(), image().layout().unwrap());
    }

    #[test]
    fn every_blob_lies_under_its_digest_and_the_manifest_names_them() {
        let files = Image::new("/bin/true", "/true").layout().unwrap();
        let blobs = files.iter().filter(|(name, _)| name.starts_with("blobs/"));
        for (name, content) in blobs {
            assert_eq!(*name, format!("blobs/{}", digest(content).replace(':', "/")));
        }
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
        let manifest: Value = serde_json::from_slice(&files[&format!("blobs/{manifest}")]).unwrap();
        for named in [&manifest["config"], &manifest["layers"][0]] {
            let blob = &files[&format!("blobs/{}", named["digest"].as_str().unwrap().replace(':', "/"))];
            assert_eq!(named["size"], blob.len());
        }
    }

    #[test]
    fn folders_come_before_what_lies_in_them() {
        let entries =
            BTreeMap::from([("a/b/c".to_owned(), Entry::File { content: Vec::new(), mode: 0o644 })]);
        let names: Vec<String> = with_folders(entries).into_keys().collect();
        assert_eq!(names, ["a", "a/b", "a/b/c"]);
    }
}
