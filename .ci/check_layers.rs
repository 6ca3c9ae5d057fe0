//! Reads the imports of a source tree, prints them, and fails on cycles and upward arrows. `.ci/check-layers` compiles and runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The layers from the bottom to the top. Entries of one row must not import each other, except for a folder and its own files.
const LAYERS: &[&[&str]] = &[
    &["sys", "name", "signatures", "throttle"],
    &["event"],
    &["stream"],
    &["protocol"],
    &["server", "client"],
    &["service"],
    &["lib"],
    &["cli"],
    &["main"],
];

/// The longest chain of re-exports that is followed.
const MAX_HOPS: usize = 16;

/// A file of the tree as a Rust module.
struct Module {
    file: PathBuf,
    /// The module path: empty for the root of the library, `["server", "drain"]` for `server/drain.rs`.
    path: Vec<String>,
    /// Belongs to the program (`main.rs`), not to the library.
    is_program: bool,
    imports: Vec<Import>,
    /// Paths in the code outside of `use` items.
    mentions: Vec<Vec<String>>,
    /// Names that this file defines.
    definitions: BTreeSet<String>,
}

struct Import {
    path: Vec<String>,
    /// The last part of the path: `*` for a glob.
    name: String,
    /// The name in this file.
    alias: String,
    is_public: bool,
}

fn main() -> ExitCode {
    let root = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "src".to_owned()));
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    if files.is_empty() {
        eprintln!("check-layers: {} has no Rust files", root.display());
        return ExitCode::FAILURE;
    }
    let tree = Tree::read(&root, &files);
    let arrows = tree.arrows();
    for (from, to) in &arrows {
        let names: Vec<String> = to.iter().map(|&to| tree.name(to)).collect();
        println!("{} -> {}", tree.name(*from), names.join(", "));
    }
    let mut faults = tree.cycles(&arrows);
    faults.extend(tree.upward(&arrows));
    let count: usize = arrows.values().map(BTreeSet::len).sum();
    if faults.is_empty() {
        println!("{} files, {count} arrows: no cycle, no upward arrow", files.len());
        return ExitCode::SUCCESS;
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    eprintln!("{} files, {count} arrows: {} faults", files.len(), faults.len());
    ExitCode::FAILURE
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

struct Tree {
    root: PathBuf,
    modules: Vec<Module>,
    /// The program and the path of each module, and its place in `modules`.
    by_path: BTreeMap<(bool, Vec<String>), usize>,
}

type Arrows = BTreeMap<usize, BTreeSet<usize>>;

impl Tree {
    fn read(root: &Path, files: &[PathBuf]) -> Self {
        let mut modules: Vec<Module> = files.iter().map(|file| Module::read(root, file)).collect();
        // The folders that `main.rs` declares are the program's; all others are the library's.
        let main = modules.iter().find(|module| module.is_program);
        let declared: BTreeSet<String> = main.map(|main| declared_modules(&main.file)).unwrap_or_default();
        for module in &mut modules {
            module.is_program |= module.path.first().is_some_and(|first| declared.contains(first));
        }
        let by_path = modules.iter().enumerate().map(|(i, module)| ((module.is_program, module.path.clone()), i)).collect();
        Self { root: root.to_owned(), modules, by_path }
    }

    fn name(&self, module: usize) -> String {
        self.modules[module].file.strip_prefix(&self.root).unwrap_or(&self.modules[module].file).display().to_string()
    }

    /// Returns each file with the files that it imports.
    fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (from, module) in self.modules.iter().enumerate() {
            let mut targets = BTreeSet::new();
            for import in &module.imports {
                // A module that re-exports what its own children define only names them.
                let target = self.resolve(from, &import.path, &import.name, MAX_HOPS);
                if let Some(to) = target
                    && !(import.is_public && self.is_inside(to, from))
                {
                    targets.insert(to);
                }
            }
            for mention in &module.mentions {
                if let Some((last, path)) = mention.split_last() {
                    targets.extend(self.resolve_mention(from, path, last));
                }
            }
            targets.remove(&from);
            if !targets.is_empty() {
                arrows.insert(from, targets);
            }
        }
        arrows
    }

    fn is_inside(&self, inner: usize, outer: usize) -> bool {
        let (inner, outer) = (&self.modules[inner], &self.modules[outer]);
        inner.is_program == outer.is_program && inner.path.starts_with(&outer.path)
    }

    /// Returns the file that a path in the code leads to, where its first part is a keyword, a child or an import of the file.
    fn resolve_mention(&self, from: usize, path: &[String], last: &str) -> Option<usize> {
        let module = &self.modules[from];
        let first = path.first()?;
        let mut full = path.to_vec();
        full.push(last.to_owned());
        if !matches!(first.as_str(), "crate" | "super" | "self" | "edgecho") {
            let start = match module.imports.iter().find(|import| import.alias == *first) {
                // An imported module: continue from where it is. An imported item was counted with its import.
                Some(import) => import.path.iter().chain([&import.name]).cloned().collect(),
                None if self.child(from, first).is_some() => vec!["self".to_owned(), first.clone()],
                None => return None,
            };
            full.splice(0..1, start);
        }
        let last = full.pop()?;
        self.resolve(from, &full, &last, MAX_HOPS)
    }

    fn child(&self, module: usize, name: &str) -> Option<usize> {
        let module = &self.modules[module];
        let mut path = module.path.clone();
        path.push(name.to_owned());
        self.by_path.get(&(module.is_program, path)).copied()
    }

    /// Returns the file that defines `name` in the module at `path`, as `from` sees it. None for other crates, and for a module itself:
    /// what is used of it is an arrow of its own.
    fn resolve(&self, from: usize, path: &[String], name: &str, hops: usize) -> Option<usize> {
        let mut place = from;
        let mut parts = path.iter();
        let first = path.first()?;
        let module = &self.modules[from];
        match first.as_str() {
            "crate" => place = *self.by_path.get(&(module.is_program, Vec::new()))?,
            "edgecho" => place = *self.by_path.get(&(false, Vec::new()))?,
            "self" => {}
            "super" => place = self.parent(from)?,
            // A child, as `pub use drain::Drain` in `server/mod.rs` has it.
            child => place = self.child(from, child)?,
        }
        parts.next();
        for part in parts {
            if part == "super" {
                place = self.parent(place)?;
            } else if let Some(child) = self.child(place, part) {
                place = child;
            } else {
                // Part of an item, such as a variant, or a module that is imported there.
                return self.definition(place, part, hops);
            }
        }
        if self.child(place, name).is_some() {
            return None;
        }
        if name == "*" {
            return Some(place);
        }
        self.definition(place, name, hops)
    }

    fn parent(&self, module: usize) -> Option<usize> {
        let module = &self.modules[module];
        let (_, parent) = module.path.split_last()?;
        self.by_path.get(&(module.is_program, parent.to_vec())).copied()
    }

    /// Returns the file that defines a name which `place` defines or imports.
    fn definition(&self, place: usize, name: &str, hops: usize) -> Option<usize> {
        let module = &self.modules[place];
        if hops == 0 || module.definitions.contains(name) {
            return Some(place);
        }
        if let Some(import) = module.imports.iter().find(|import| import.alias == name) {
            return self.resolve(place, &import.path, &import.name, hops - 1);
        }
        let globs = module.imports.iter().filter(|import| import.name == "*" && import.is_public);
        for glob in globs {
            if let Some(target) = self.resolve(place, &glob.path, "*", hops - 1)
                && self.modules[target].definitions.contains(name)
            {
                return Some(target);
            }
        }
        Some(place)
    }

    /// Returns a line for each cycle, among files and among the entries of each folder.
    fn cycles(&self, arrows: &Arrows) -> Vec<String> {
        let mut faults = Vec::new();
        let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
        for module in &self.modules {
            folders
                .extend(module.file.ancestors().skip(1).filter(|folder| folder.starts_with(&self.root)).map(Path::to_owned));
        }
        for folder in folders {
            // The entries of the folder, and the arrows between them with the files that cause each.
            let mut graph: BTreeMap<PathBuf, BTreeMap<PathBuf, (usize, usize)>> = BTreeMap::new();
            for (&from, targets) in arrows {
                for &to in targets {
                    let (Some(a), Some(b)) = (self.entry(&folder, from), self.entry(&folder, to)) else { continue };
                    if a != b {
                        graph.entry(a).or_default().entry(b).or_insert((from, to));
                    }
                }
            }
            for knot in knots(&graph) {
                faults.push(format!("cycle in {}: {}", folder.display(), names(&knot)));
                for a in &knot {
                    for (b, (from, to)) in graph.get(a).into_iter().flatten().filter(|(b, _)| knot.contains(*b)) {
                        let _ = b;
                        faults.push(format!("    {} -> {}", self.name(*from), self.name(*to)));
                    }
                }
            }
        }
        faults
    }

    /// Returns the file or subfolder of `folder` that holds a file.
    fn entry(&self, folder: &Path, module: usize) -> Option<PathBuf> {
        let rest = self.modules[module].file.strip_prefix(folder).ok()?;
        // lib.rs and main.rs declare everything, and are checked as layers.
        let first = rest.components().next()?;
        Some(PathBuf::from(first.as_os_str()))
    }

    /// Returns a line for each arrow from a layer to one above it, or to another one of the same row.
    fn upward(&self, arrows: &Arrows) -> Vec<String> {
        let mut faults = Vec::new();
        for (&from, targets) in arrows {
            for &to in targets {
                let (a, b) = (self.layer(from), self.layer(to));
                match (rank(&a), rank(&b)) {
                    (Some(_), Some(_)) if a == b => {}
                    (Some(from_rank), Some(to_rank)) if from_rank > to_rank => {}
                    (Some(_), Some(_)) => faults.push(format!("upward arrow: {} -> {}", self.name(from), self.name(to))),
                    (None, _) => faults.push(format!("{} is in no layer: add it to .ci/check_layers.rs", self.name(from))),
                    (_, None) => faults.push(format!("{} is in no layer: add it to .ci/check_layers.rs", self.name(to))),
                }
            }
        }
        faults
    }

    fn layer(&self, module: usize) -> String {
        let entry = self.entry(&self.root, module).unwrap_or_default();
        entry.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&layer))
}

fn names(knot: &BTreeSet<PathBuf>) -> String {
    knot.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Returns the groups of two or more nodes that reach each other.
fn knots<T>(graph: &BTreeMap<PathBuf, BTreeMap<PathBuf, T>>) -> Vec<BTreeSet<PathBuf>> {
    let reach = |start: &PathBuf| {
        let (mut seen, mut queue) = (BTreeSet::new(), vec![start.clone()]);
        while let Some(node) = queue.pop() {
            for next in graph.get(&node).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(next.clone()) {
                    queue.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&PathBuf, BTreeSet<PathBuf>> = graph.keys().map(|node| (node, reach(node))).collect();
    let mut knots: Vec<BTreeSet<PathBuf>> = Vec::new();
    for (&node, seen) in &reached {
        if seen.contains(node) && !knots.iter().any(|knot| knot.contains(node)) {
            let returns = |other: &&PathBuf| reached.get(*other).is_some_and(|seen| seen.contains(node));
            knots.push(seen.iter().filter(returns).cloned().collect());
        }
    }
    knots
}

impl Module {
    fn read(root: &Path, file: &Path) -> Self {
        let tokens = tokens_of(file);
        let relative = file.strip_prefix(root).expect("a file below the root").with_extension("");
        let mut path: Vec<String> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let is_program = path == ["main"];
        if path.last().is_some_and(|last| last == "mod") || path == ["lib"] || is_program {
            path.pop();
        }
        let mut module = Self {
            file: file.to_owned(),
            path,
            is_program,
            imports: Vec::new(),
            mentions: Vec::new(),
            definitions: BTreeSet::new(),
        };
        module.scan(&tokens);
        module
    }

    fn scan(&mut self, tokens: &[String]) {
        let mut i = 0;
        let mut is_public = false;
        // The depth of braces, and the depths at which the inline modules around this place began.
        let mut depth = 0;
        let mut inline: Vec<usize> = Vec::new();
        while i < tokens.len() {
            let token = tokens[i].as_str();
            match token {
                "{" => {
                    if i >= 2 && tokens[i - 2] == "mod" {
                        inline.push(depth);
                    }
                    depth += 1;
                    i += 1;
                }
                "}" => {
                    depth = depth.saturating_sub(1);
                    if inline.last() == Some(&depth) {
                        inline.pop();
                    }
                    i += 1;
                }
                "pub" => {
                    is_public = true;
                    // pub(crate), pub(in …)
                    if tokens.get(i + 1).is_some_and(|next| next == "(") {
                        while tokens[i] != ")" {
                            i += 1;
                        }
                    }
                    i += 1;
                    continue;
                }
                "use" => {
                    i += 1;
                    let first = self.imports.len();
                    self.use_tree(tokens, &mut i, &[], is_public);
                    for import in &mut self.imports[first..] {
                        import.path.push(std::mem::take(&mut import.name));
                        leave_inline_modules(&mut import.path, inline.len());
                        import.name = import.path.pop().unwrap_or_default();
                    }
                    // A glob of the file itself imports nothing from elsewhere.
                    let is_own = |import: &Import| import.path == ["self"] && import.name == "*";
                    let mut place = 0;
                    self.imports.retain(|import| {
                        place += 1;
                        place <= first || !is_own(import)
                    });
                }
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => {
                    let mut name = tokens.get(i + 1);
                    if name.is_some_and(|name| name == "fn") {
                        name = tokens.get(i + 2); // const fn
                    }
                    self.definitions.extend(name.cloned());
                    i += 1;
                }
                "macro_rules" => {
                    self.definitions.extend(tokens.get(i + 2).cloned());
                    i += 3;
                }
                _ if is_identifier(token) => {
                    let mut path = vec![token.to_owned()];
                    while tokens.get(i + 1).is_some_and(|next| next == "::")
                        && tokens.get(i + 2).is_some_and(|next| is_identifier(next))
                    {
                        path.push(tokens[i + 2].clone());
                        i += 2;
                    }
                    if path.len() > 1 {
                        leave_inline_modules(&mut path, inline.len());
                        self.mentions.push(path);
                    }
                    i += 1;
                }
                _ => i += 1,
            }
            is_public = false;
        }
    }

    /// Reads one branch of a `use` item: `a::{b, c::D as E, *}`.
    fn use_tree(&mut self, tokens: &[String], i: &mut usize, prefix: &[String], is_public: bool) {
        let mut path = prefix.to_vec();
        let mut alias = None;
        while let Some(token) = tokens.get(*i) {
            *i += 1;
            match token.as_str() {
                "::" => {}
                "{" => {
                    while tokens.get(*i).is_some_and(|token| token != "}") {
                        self.use_tree(tokens, i, &path, is_public);
                        if tokens.get(*i).is_some_and(|token| token == ",") {
                            *i += 1;
                        }
                    }
                    *i += 1;
                    return;
                }
                "*" => {
                    self.imports.push(Import { path, name: "*".to_owned(), alias: "*".to_owned(), is_public });
                    return;
                }
                "as" => {
                    alias = tokens.get(*i).cloned();
                    *i += 1;
                    break;
                }
                ";" | "," | "}" => {
                    *i -= 1;
                    break;
                }
                part => path.push(part.to_owned()),
            }
        }
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        if let Some(name) = path.pop() {
            let alias = alias.unwrap_or_else(|| name.clone());
            self.imports.push(Import { path, name, alias, is_public });
        }
    }
}

/// Turns a path that an inline module uses into one that its file can use: `super` first leads out of the `nesting` inline modules.
fn leave_inline_modules(path: &mut Vec<String>, nesting: usize) {
    let start = usize::from(path.first().is_some_and(|first| first == "self"));
    let supers = path[start..].iter().take_while(|part| *part == "super").count();
    if nesting == 0 || supers == 0 {
        return;
    }
    path.drain(..start + supers.min(nesting));
    if supers <= nesting {
        path.insert(0, "self".to_owned());
    }
}

fn is_identifier(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Returns the modules that a file declares.
fn declared_modules(file: &Path) -> BTreeSet<String> {
    let tokens = tokens_of(file);
    tokens.windows(3).filter(|window| window[0] == "mod" && window[2] == ";").map(|window| window[1].clone()).collect()
}

/// Returns the tokens of a file without comments, literals and unit tests.
fn tokens_of(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let tokens = tokenize(&text);
    let mut kept: Vec<String> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let test = ["#", "[", "cfg", "(", "test", ")", "]"];
        if tokens[i..].len() > test.len() && tokens[i..i + test.len()].iter().eq(test.iter()) {
            i = end_of_item(&tokens, i + test.len());
            continue;
        }
        kept.push(tokens[i].clone());
        i += 1;
    }
    kept
}

/// Returns the place behind the item that starts at `i`: behind its block or its semicolon.
fn end_of_item(tokens: &[String], mut i: usize) -> usize {
    let mut depth = 0;
    while i < tokens.len() {
        match tokens[i].as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return i + 1;
                }
            }
            ";" if depth == 0 => return i + 1,
            _ => {}
        }
        i += 1;
    }
    i
}

fn tokenize(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        let next = chars.get(i + 1).copied().unwrap_or(' ');
        if c == '/' && next == '/' {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if c == '/' && next == '*' {
            let mut depth = 0;
            while i < chars.len() {
                match (chars[i], chars.get(i + 1)) {
                    ('/', Some('*')) => depth += 1,
                    ('*', Some('/')) => depth -= 1,
                    _ => {
                        i += 1;
                        continue;
                    }
                }
                i += 2;
                if depth == 0 {
                    break;
                }
            }
        } else if let Some(hashes) = raw_string(&chars, i) {
            let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            while chars[i] != '"' {
                i += 1;
            }
            i += 1;
            while i < chars.len() && !chars[i..].starts_with(&end) {
                i += 1;
            }
            i += end.len();
        } else if c == '"' {
            i += 1;
            while i < chars.len() && chars[i] != '"' {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if c == '\'' && (next == '\\' || chars.get(i + 2) == Some(&'\'')) {
            i += if next == '\\' { 3 } else { 2 };
            while i < chars.len() && chars[i] != '\'' {
                i += 1;
            }
            i += 1;
        } else if c.is_alphanumeric() || c == '_' {
            let start = i;
            while i < chars.len() && (chars[i].is_alphanumeric() || chars[i] == '_') {
                i += 1;
            }
            tokens.push(chars[start..i].iter().collect());
        } else if c == ':' && next == ':' {
            tokens.push("::".to_owned());
            i += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            i += 1;
        }
    }
    tokens
}

/// Returns the number of `#` of a raw string that starts at `i`.
fn raw_string(chars: &[char], i: usize) -> Option<usize> {
    if i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_') {
        return None;
    }
    let mut at = i;
    if chars.get(at) == Some(&'b') {
        at += 1;
    }
    if chars.get(at) != Some(&'r') {
        return None;
    }
    at += 1;
    let hashes = chars[at..].iter().take_while(|&&c| c == '#').count();
    (chars.get(at + hashes) == Some(&'"')).then_some(hashes)
}
