// SPDX-License-Identifier: Apache-2.0
//! The configuration folder: which networks it holds, in which order, and what cannot be used.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::value::RawValue;

use super::conf::{NetworkList, Object, Problem, flag, get, object};

/// A larger file is no network configuration.
const MAX_FILE: u64 = 1 << 20;

/// What a folder holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Loaded {
    /// The usable networks, in the order of their files.
    pub(super) networks: Vec<Arc<NetworkList>>,
    /// `FILE: PROBLEM` of the others.
    pub(super) warnings: Vec<String>,
    /// The folders of further plugins that were looked into.
    pub(super) folders: Vec<PathBuf>,
}

/// Reads the folder. Never fails: what cannot be read is a warning. Blocks.
pub(super) fn load(conf_dir: &Path, bin_dirs: &[PathBuf]) -> Loaded {
    let mut loaded = Loaded::default();
    let paths = match files(conf_dir, &["conf", "conflist", "json"]) {
        Ok(paths) => paths,
        Err(problem) => {
            loaded.warnings.push(problem);
            return loaded;
        }
    };
    let mut names = BTreeSet::new();
    for path in paths {
        let usable = load_file(conf_dir, &path).and_then(|list| {
            let folder = conf_dir.join(&list.name);
            if folder.is_dir() {
                loaded.folders.push(folder);
            }
            if names.contains(&list.name) {
                return Err(format!("network {} is defined by an earlier file", list.name));
            }
            has_programs(&list, bin_dirs)?;
            Ok(list)
        });
        match usable {
            Ok(list) => {
                names.insert(list.name.clone());
                loaded.networks.push(Arc::new(list));
            }
            Err(problem) => loaded.warnings.push(format!("{}: {problem}", path.display())),
        }
    }
    loaded
}

/// The program of a plugin: the first executable file of that name.
pub(super) fn find_program(bin_dirs: &[PathBuf], kind: &str) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    bin_dirs.iter().map(|dir| dir.join(kind)).find(executable)
}

/// The folders as people read them.
pub(super) fn join(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn has_programs(list: &NetworkList, bin_dirs: &[PathBuf]) -> Result<(), Problem> {
    match list.plugins.iter().find(|plugin| find_program(bin_dirs, &plugin.kind).is_none()) {
        None => Ok(()),
        Some(plugin) => Err(format!("plugin {} is not an executable in {}", plugin.kind, join(bin_dirs))),
    }
}

/// The files with these endings, in the order of their names.
fn files(dir: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, Problem> {
    let failed = |e: std::io::Error| format!("cannot list {}: {e}", dir.display());
    let mut paths = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(paths),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let wanted = path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending));
        if wanted && !hidden && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes"));
    }
    Ok(bytes)
}

/// Reads one file. What comes out of the file by convention (a lone plugin is a list of one, a
/// missing name is the file's, plugins in a folder of the network's name are appended) is written
/// into the list's bytes, so that the bytes alone say everything.
fn load_file(conf_dir: &Path, path: &Path) -> Result<NetworkList, Problem> {
    let bytes = read(path)?;
    let mut list = object(&bytes)?;
    let mut changed = false;
    if !list.contains_key("plugins") && path.extension().is_none_or(|e| e != "conflist") {
        list = wrapped(list, &bytes)?;
        changed = true;
    }
    let name: Option<String> = get(&list, "name")?;
    let name = match name.filter(|name| !name.is_empty()) {
        Some(name) => name,
        None => {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            list.insert("name".to_owned(), raw(&stem)?);
            changed = true;
            stem
        }
    };
    changed |= append_folder(conf_dir, &name, &mut list)?;
    let bytes = if changed { serde_json::to_vec(&list).map_err(|e| e.to_string())? } else { bytes };
    NetworkList::parse(&bytes, &path.display().to_string())
}

/// A list of one plugin.
fn wrapped(plugin: Object, bytes: &[u8]) -> Result<Object, Problem> {
    if !plugin.contains_key("type") {
        return Err("it has neither \"plugins\" nor \"type\"".to_owned());
    }
    let text = String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string())?;
    let only = RawValue::from_string(text).map_err(|e| e.to_string())?;
    let keys = ["name", "cniVersion", "cniVersions"];
    let mut list: Object = plugin.into_iter().filter(|(key, _)| keys.contains(&key.as_str())).collect();
    list.insert("plugins".to_owned(), raw(&[only])?);
    Ok(list)
}

/// Appends the plugins of `CONF_DIR/NETWORK/*.conf` (CNI spec 1.1.0, "loadOnlyInlinedPlugins").
fn append_folder(conf_dir: &Path, name: &str, list: &mut Object) -> Result<bool, Problem> {
    let folder = conf_dir.join(name);
    if !super::conf::is_name(name) || flag(list, "loadOnlyInlinedPlugins")? || !folder.is_dir() {
        return Ok(false);
    }
    let mut plugins: Vec<Box<RawValue>> = get(list, "plugins")?.unwrap_or_default();
    let before = plugins.len();
    for path in files(&folder, &["conf"])? {
        let in_file = |e: String| format!("{}: {e}", path.display());
        let text = String::from_utf8(read(&path).map_err(in_file)?).map_err(|e| in_file(e.to_string()))?;
        plugins.push(RawValue::from_string(text).map_err(|e| in_file(e.to_string()))?);
    }
    if plugins.len() == before {
        return Ok(false);
    }
    list.insert("plugins".to_owned(), raw(&plugins)?);
    Ok(true)
}

fn raw<T: serde::Serialize + ?Sized>(value: &T) -> Result<Box<RawValue>, Problem> {
    serde_json::value::to_raw_value(value).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dirs {
        dir: tempfile::TempDir,
    }

    impl Dirs {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for sub in ["conf", "bin"] {
                fs::create_dir(dir.path().join(sub)).unwrap();
            }
            for program in ["bridge", "portmap"] {
                let path = dir.path().join("bin").join(program);
                fs::write(&path, "").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            for (name, text) in files {
                let path = dir.path().join("conf").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self { dir }
        }

        fn load(&self) -> Loaded {
            load(&self.dir.path().join("conf"), &[self.dir.path().join("bin")])
        }

        fn names(&self) -> Vec<String> {
            self.load().networks.iter().map(|list| list.name.clone()).collect()
        }
    }

    fn list(name: &str, kind: &str) -> String {
        format!(r#"{{"name":"{name}","cniVersion":"1.0.0","plugins":[{{"type":"{kind}"}}]}}"#)
    }

    #[test]
    fn files_count_in_the_order_of_their_names() {
        let dirs = Dirs::new(&[
            ("20-b.conflist", &list("b", "bridge")),
            ("10-a.json", &list("a", "bridge")),
            ("30-c.conf", r#"{"name":"c","type":"bridge"}"#),
            ("00-x.txt", &list("x", "bridge")),
            (".hidden.conf", &list("h", "bridge")),
            ("05-editor.conflist~", &list("e", "bridge")),
        ]);
        assert_eq!(dirs.names(), ["a", "b", "c"]);
        assert_eq!(dirs.load().warnings, Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_used_is_skipped_with_a_warning_that_names_it() {
        let dirs = Dirs::new(&[
            ("1.conflist", "{"),
            ("2.conflist", &list("two", "no-such-plugin")),
            ("3.conflist", r#"{"name":"three","type":"bridge"}"#),
            ("4.conf", r#"{"name":"four"}"#),
            ("5.conflist", r#"{"name":"five","cniVersion":"9.9.9","plugins":[{"type":"bridge"}]}"#),
            ("6.conflist", &list("six", "bridge")),
            ("7.conflist", &list("six", "portmap")),
        ]);
        let loaded = dirs.load();
        assert_eq!(dirs.names(), ["six"]);
        assert_eq!(loaded.networks[0].plugins[0].kind, "bridge");
        let expected = [
            ("1.conflist", "not a JSON object"),
            ("2.conflist", "plugin no-such-plugin is not an executable in"),
            ("3.conflist", "no \"plugins\""),
            ("4.conf", "neither \"plugins\" nor \"type\""),
            ("5.conflist", "CNI version 9.9.9 is not known"),
            ("7.conflist", "defined by an earlier file"),
        ];
        assert_eq!(loaded.warnings.len(), expected.len(), "{:#?}", loaded.warnings);
        for (warning, (file, problem)) in loaded.warnings.iter().zip(expected) {
            assert!(warning.contains(file) && warning.contains(problem), "{warning}");
        }
    }

    #[test]
    fn a_list_keeps_its_exact_bytes() {
        let text = format!(" {} \n", list("a", "bridge"));
        let dirs = Dirs::new(&[("1.conflist", &text)]);
        assert_eq!(dirs.load().networks[0].bytes, text.as_bytes());
    }

    #[test]
    fn a_lone_plugin_becomes_a_list_and_a_missing_name_is_the_files() {
        let dirs = Dirs::new(&[("10-lone.conf", r#"{"cniVersion":"0.3.1","type":"bridge","mtu":9000}"#)]);
        let loaded = dirs.load();
        let list = &loaded.networks[0];
        assert_eq!((list.name.as_str(), list.version.as_str()), ("10-lone", "0.3.1"));
        assert_eq!(list.plugins[0].object["mtu"].get(), "9000");
        let again = NetworkList::parse(&list.bytes, "record").unwrap();
        assert_eq!((again.name, again.version), (list.name.clone(), list.version));
    }

    #[test]
    fn plugins_in_the_networks_folder_are_appended_unless_forbidden() {
        let inlined = r#"{"name":"b","loadOnlyInlinedPlugins":true,"plugins":[{"type":"bridge"}]}"#;
        let dirs = Dirs::new(&[
            ("1.conflist", &list("a", "bridge")),
            ("a/20-x.conf", r#"{"type":"portmap"}"#),
            ("a/readme.txt", "no"),
            ("2.conflist", inlined),
            ("b/20-x.conf", r#"{"type":"portmap"}"#),
        ]);
        let loaded = dirs.load();
        let kinds = |n: usize| loaded.networks[n].plugins.iter().map(|p| p.kind.as_str()).collect::<Vec<_>>();
        assert_eq!(kinds(0), ["bridge", "portmap"]);
        assert_eq!(kinds(1), ["bridge"]);
        assert_eq!(NetworkList::parse(&loaded.networks[0].bytes, "record").unwrap().plugins.len(), 2);
    }

    #[test]
    fn a_missing_folder_holds_nothing() {
        let loaded = load(Path::new("/nonexistent/net.d"), &[]);
        assert!(loaded.networks.is_empty() && loaded.warnings.is_empty());
    }
}
