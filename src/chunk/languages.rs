//! The languages the service knows, how a document's name tells its language, and their grammars.
//!
//! | `language` | grammar | names |
//! |---|---|---|
//! | `bash` | tree-sitter-bash | `.sh` `.bash` `.zsh` `.ksh` `.bats`, `.bashrc`, `.bash_profile`, `.profile`, `.zshrc`, `PKGBUILD` |
//! | `c` | tree-sitter-c | `.c`, `.h` without C++ in it |
//! | `cpp` | tree-sitter-cpp | `.cc` `.cpp` `.cxx` `.c++` `.hh` `.hpp` `.hxx` `.h++` `.ipp` `.inl` `.tpp` `.cu` `.cuh` `.ino`, `.h` with C++ in it |
//! | `csharp` | tree-sitter-c-sharp | `.cs` `.csx` |
//! | `css` | tree-sitter-css | `.css` |
//! | `dart` | tree-sitter-dart | `.dart` |
//! | `elixir` | tree-sitter-elixir | `.ex` `.exs` |
//! | `go` | tree-sitter-go | `.go` |
//! | `haskell` | tree-sitter-haskell | `.hs` |
//! | `html` | tree-sitter-html | `.html` `.htm` `.xhtml` |
//! | `java` | tree-sitter-java | `.java` |
//! | `javascript` | tree-sitter-javascript | `.js` `.mjs` `.cjs` `.jsx` |
//! | `json` | tree-sitter-json | `.json` `.jsonc` `.jsonl` `.ndjson` `.geojson` `.webmanifest` `.ipynb`, `composer.lock`, `.babelrc`, `.eslintrc` |
//! | `kotlin` | tree-sitter-kotlin-ng | `.kt` `.kts` |
//! | `lua` | tree-sitter-lua | `.lua` |
//! | `markdown` | none: see `markdown.rs` | `.md` `.markdown` `.mdown` `.mkd` `.mdx` |
//! | `ocaml` | tree-sitter-ocaml | `.ml`, `.mli` (its own grammar) |
//! | `php` | tree-sitter-php | `.php` `.phtml` |
//! | `python` | tree-sitter-python | `.py` `.pyi` `.pyw`, `SConstruct`, `SConscript` |
//! | `ruby` | tree-sitter-ruby | `.rb` `.rake` `.gemspec` `.ru`, `Gemfile`, `Rakefile`, `Vagrantfile`, `Podfile`, `Brewfile` |
//! | `rust` | tree-sitter-rust | `.rs` |
//! | `scala` | tree-sitter-scala | `.scala` `.sc` `.sbt` |
//! | `sql` | tree-sitter-sequel | `.sql` |
//! | `swift` | tree-sitter-swift | `.swift` |
//! | `toml` | tree-sitter-toml-ng | `.toml`, `Cargo.lock`, `poetry.lock`, `uv.lock`, `Pipfile` |
//! | `tsx` | tree-sitter-typescript | `.tsx` |
//! | `typescript` | tree-sitter-typescript | `.ts` `.mts` `.cts` |
//! | `yaml` | tree-sitter-yaml | `.yaml` `.yml`, `.clang-format`, `.clang-tidy` |
//! | `zig` | tree-sitter-zig | `.zig` `.zon` |
//!
//! Extensions are matched without regard to case, file names exactly. A document with any other name has no
//! language and is cut by lines. Contents are not guessed at, but for one case that is too common to leave
//! out: `.h` is C++ if it uses what only C++ has.

use memchr::memmem;

use super::scanner_guard;

/// How much of a `.h` file is read to tell C++ from C, in bytes.
const HEADER_PROBE_BYTES: usize = 64 * 1024;

/// The longest Haskell text that is parsed, in bytes. For `<<A` on every line the parser compares whole
/// trees again and again, which takes quadratic time that nothing shows: 2.4 s for 80 KB.
const MAX_HASKELL_BYTES: usize = 96 * 1024;

/// What a C++ header has and a C header does not.
const CPP_MARKS: [&str; 7] = [
    "\nnamespace ",
    "\nclass ",
    "\ntemplate <",
    "\ntemplate<",
    "\npublic:",
    "\nusing ",
    "std::",
];

/// A language the service knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants are the languages' names")]
pub enum Language {
    Bash,
    C,
    Cpp,
    Csharp,
    Css,
    Dart,
    Elixir,
    Go,
    Haskell,
    Html,
    Java,
    Javascript,
    Json,
    Kotlin,
    Lua,
    Markdown,
    Ocaml,
    OcamlInterface,
    Php,
    Python,
    Ruby,
    Rust,
    Scala,
    Sql,
    Swift,
    Toml,
    Tsx,
    Typescript,
    Yaml,
    Zig,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 30] = [
        Self::Bash,
        Self::C,
        Self::Cpp,
        Self::Csharp,
        Self::Css,
        Self::Dart,
        Self::Elixir,
        Self::Go,
        Self::Haskell,
        Self::Html,
        Self::Java,
        Self::Javascript,
        Self::Json,
        Self::Kotlin,
        Self::Lua,
        Self::Markdown,
        Self::Ocaml,
        Self::OcamlInterface,
        Self::Php,
        Self::Python,
        Self::Ruby,
        Self::Rust,
        Self::Scala,
        Self::Sql,
        Self::Swift,
        Self::Toml,
        Self::Tsx,
        Self::Typescript,
        Self::Yaml,
        Self::Zig,
    ];

    /// The name in a record's metadata. OCaml's two file types share one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Csharp => "csharp",
            Self::Css => "css",
            Self::Dart => "dart",
            Self::Elixir => "elixir",
            Self::Go => "go",
            Self::Haskell => "haskell",
            Self::Html => "html",
            Self::Java => "java",
            Self::Javascript => "javascript",
            Self::Json => "json",
            Self::Kotlin => "kotlin",
            Self::Lua => "lua",
            Self::Markdown => "markdown",
            Self::Ocaml | Self::OcamlInterface => "ocaml",
            Self::Php => "php",
            Self::Python => "python",
            Self::Ruby => "ruby",
            Self::Rust => "rust",
            Self::Scala => "scala",
            Self::Sql => "sql",
            Self::Swift => "swift",
            Self::Toml => "toml",
            Self::Tsx => "tsx",
            Self::Typescript => "typescript",
            Self::Yaml => "yaml",
            Self::Zig => "zig",
        }
    }

    /// The language of the document named `document_key`; `text` only decides what a `.h` is.
    pub fn of_document(document_key: &str, text: &str) -> Option<Self> {
        let file_name = document_key.rsplit(['/', '\\']).next()?;
        if let Some(language) = of_file_name(file_name) {
            return Some(language);
        }
        let (_, extension) = file_name.rsplit_once('.')?;
        let extension = extension.to_ascii_lowercase();
        match extension.as_str() {
            "h" => Some(of_header(text)),
            extension => of_extension(extension),
        }
    }

    /// The grammar to parse `text` with. None for Markdown, and for a text that the grammar cannot take.
    pub fn grammar_for(self, text: &str) -> Option<tree_sitter::Language> {
        match self {
            Self::Haskell if text.len() > MAX_HASKELL_BYTES => None,
            Self::Ocaml | Self::OcamlInterface if scanner_guard::has_very_many_comments(text) => None,
            Self::Ruby if scanner_guard::has_oversized_heredoc(text) => None,
            language => language.grammar(),
        }
    }

    fn grammar(self) -> Option<tree_sitter::Language> {
        let grammar = match self {
            Self::Bash => tree_sitter_bash::LANGUAGE,
            Self::C => tree_sitter_c::LANGUAGE,
            Self::Cpp => tree_sitter_cpp::LANGUAGE,
            Self::Csharp => tree_sitter_c_sharp::LANGUAGE,
            Self::Css => tree_sitter_css::LANGUAGE,
            Self::Dart => tree_sitter_dart::LANGUAGE,
            Self::Elixir => tree_sitter_elixir::LANGUAGE,
            Self::Go => tree_sitter_go::LANGUAGE,
            Self::Haskell => tree_sitter_haskell::LANGUAGE,
            Self::Html => return scanner_guard::html(),
            Self::Java => tree_sitter_java::LANGUAGE,
            Self::Javascript => tree_sitter_javascript::LANGUAGE,
            Self::Json => tree_sitter_json::LANGUAGE,
            Self::Kotlin => tree_sitter_kotlin_ng::LANGUAGE,
            Self::Lua => tree_sitter_lua::LANGUAGE,
            Self::Markdown => return None,
            Self::Ocaml => tree_sitter_ocaml::LANGUAGE_OCAML,
            Self::OcamlInterface => tree_sitter_ocaml::LANGUAGE_OCAML_INTERFACE,
            Self::Php => tree_sitter_php::LANGUAGE_PHP,
            Self::Python => return scanner_guard::python(),
            Self::Ruby => return scanner_guard::ruby(),
            Self::Rust => tree_sitter_rust::LANGUAGE,
            Self::Scala => tree_sitter_scala::LANGUAGE,
            Self::Sql => tree_sitter_sequel::LANGUAGE,
            Self::Swift => tree_sitter_swift::LANGUAGE,
            Self::Toml => tree_sitter_toml_ng::LANGUAGE,
            Self::Tsx => tree_sitter_typescript::LANGUAGE_TSX,
            Self::Typescript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT,
            Self::Yaml => return scanner_guard::yaml(),
            Self::Zig => tree_sitter_zig::LANGUAGE,
        };
        Some(grammar.into())
    }
}

fn of_extension(extension: &str) -> Option<Language> {
    Some(match extension {
        "sh" | "bash" | "zsh" | "ksh" | "bats" => Language::Bash,
        "c" => Language::C,
        "cc" | "cpp" | "cxx" | "c++" | "hh" | "hpp" | "hxx" | "h++" | "ipp" | "inl" | "tpp" | "cu"
        | "cuh" | "ino" => Language::Cpp,
        "cs" | "csx" => Language::Csharp,
        "css" => Language::Css,
        "dart" => Language::Dart,
        "ex" | "exs" => Language::Elixir,
        "go" => Language::Go,
        "hs" => Language::Haskell,
        "html" | "htm" | "xhtml" => Language::Html,
        "java" => Language::Java,
        "js" | "mjs" | "cjs" | "jsx" => Language::Javascript,
        "json" | "jsonc" | "jsonl" | "ndjson" | "geojson" | "webmanifest" | "ipynb" => Language::Json,
        "kt" | "kts" => Language::Kotlin,
        "lua" => Language::Lua,
        "md" | "markdown" | "mdown" | "mkd" | "mdx" => Language::Markdown,
        "ml" => Language::Ocaml,
        "mli" => Language::OcamlInterface,
        "php" | "phtml" => Language::Php,
        "py" | "pyi" | "pyw" => Language::Python,
        "rb" | "rake" | "gemspec" | "ru" => Language::Ruby,
        "rs" => Language::Rust,
        "scala" | "sc" | "sbt" => Language::Scala,
        "sql" => Language::Sql,
        "swift" => Language::Swift,
        "toml" => Language::Toml,
        "tsx" => Language::Tsx,
        "ts" | "mts" | "cts" => Language::Typescript,
        "yaml" | "yml" => Language::Yaml,
        "zig" | "zon" => Language::Zig,
        _ => return None,
    })
}

fn of_file_name(file_name: &str) -> Option<Language> {
    Some(match file_name {
        ".bashrc" | ".bash_profile" | ".profile" | ".zshrc" | "PKGBUILD" => Language::Bash,
        "composer.lock" | ".babelrc" | ".eslintrc" => Language::Json,
        "SConstruct" | "SConscript" => Language::Python,
        "Gemfile" | "Rakefile" | "Vagrantfile" | "Podfile" | "Brewfile" => Language::Ruby,
        "Cargo.lock" | "poetry.lock" | "uv.lock" | "Pipfile" => Language::Toml,
        ".clang-format" | ".clang-tidy" => Language::Yaml,
        _ => return None,
    })
}

fn of_header(text: &str) -> Language {
    let probe = &text.as_bytes()[..text.len().min(HEADER_PROBE_BYTES)];
    let is_cpp = CPP_MARKS
        .iter()
        .any(|mark| memmem::find(probe, mark.as_bytes()).is_some());
    if is_cpp { Language::Cpp } else { Language::C }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::chunk::parse_budget;

    /// A document key and a text in each language.
    const SAMPLES: [(&str, &str, &str); 30] = [
        ("run.sh", "bash", "f() {\n  echo \"$1\"\n}\nf a\n"),
        ("a.c", "c", "int main(void) { return 0; }\n"),
        ("a.cc", "cpp", "namespace a { class B { int c; }; }\n"),
        ("A.cs", "csharp", "namespace A { class B { int C() => 1; } }\n"),
        ("a.css", "css", "a { color: red; }\n"),
        ("a.dart", "dart", "void main() { print('a'); }\n"),
        ("a.ex", "elixir", "defmodule A do\n  def b, do: 1\nend\n"),
        ("a.go", "go", "package a\n\nfunc B() int { return 1 }\n"),
        ("A.hs", "haskell", "module A where\n\nb :: Int\nb = 1\n"),
        ("a.html", "html", "<html><body><p>a</p></body></html>\n"),
        ("A.java", "java", "class A { int b() { return 1; } }\n"),
        ("a.mjs", "javascript", "export const a = () => 1;\n"),
        ("a.json", "json", "{\"a\": [1, null]}\n"),
        ("a.kt", "kotlin", "fun a(): Int = 1\n"),
        ("a.lua", "lua", "local function a() return 1 end\n"),
        ("README.md", "markdown", "# A\n"),
        ("a.ml", "ocaml", "let a x = x + 1\n"),
        ("a.mli", "ocaml", "val a : int -> int\n"),
        ("a.php", "php", "<?php function a() { return 1; }\n"),
        ("a.py", "python", "def a():\n    return 1\n"),
        ("a.rb", "ruby", "def a\n  1\nend\n"),
        ("a.rs", "rust", "fn a() -> u8 { 1 }\n"),
        ("a.scala", "scala", "object A { def b: Int = 1 }\n"),
        ("a.sql", "sql", "SELECT a FROM b WHERE c = 1;\n"),
        ("a.swift", "swift", "func a() -> Int { return 1 }\n"),
        ("a.toml", "toml", "[a]\nb = 1\n"),
        ("a.tsx", "tsx", "const a = <b>{c}</b>;\n"),
        ("a.ts", "typescript", "const a: number = 1;\n"),
        ("a.yml", "yaml", "a:\n  - b: 1\n"),
        ("a.zig", "zig", "fn a() u8 { return 1; }\n"),
    ];

    #[test]
    fn every_language_is_named_by_its_files_and_parses_a_sample() {
        for ((key, name, text), language) in SAMPLES.into_iter().zip(Language::ALL) {
            assert_eq!(Language::of_document(key, text), Some(language), "{key}");
            assert_eq!(language.name(), name);
            if language == Language::Markdown {
                continue;
            }
            let grammar = language
                .grammar_for(text)
                .unwrap_or_else(|| panic!("{name} has no grammar"));
            let tree = parse_budget::parse(&grammar, text).unwrap_or_else(|| panic!("{name} does not load"));
            assert!(
                !tree.root_node().has_error(),
                "{name}: {}",
                tree.root_node().to_sexp()
            );
            assert_eq!(tree.root_node().end_byte(), text.len(), "{name}");
        }
    }

    #[test]
    fn names_are_matched_in_any_directory_and_extensions_in_any_case() {
        for (key, language) in [
            ("src/lib.rs", Some(Language::Rust)),
            ("C:\\src\\LIB.RS", Some(Language::Rust)),
            ("a.tar.json", Some(Language::Json)),
            ("lib/Gemfile", Some(Language::Ruby)),
            (".bashrc", Some(Language::Bash)),
            ("https://example.com/docs/index.html", Some(Language::Html)),
            ("gemfile", None),
            ("rs", None),
            (".rs/README", None),
            ("a.", None),
            ("", None),
        ] {
            assert_eq!(Language::of_document(key, ""), language, "{key}");
        }
    }

    #[test]
    fn a_header_is_cpp_if_it_uses_what_only_cpp_has() {
        assert_eq!(
            Language::of_document("a.h", "#pragma once\nint a(void);\n"),
            Some(Language::C)
        );
        assert_eq!(
            Language::of_document("a.h", "#pragma once\nnamespace a {}\n"),
            Some(Language::Cpp)
        );
        assert_eq!(
            Language::of_document("a.h", "std::string a();\n"),
            Some(Language::Cpp)
        );
    }
}
