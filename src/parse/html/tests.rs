//! What becomes of HTML, construct by construct.

use proptest::prelude::*;
use url::Url;

use super::{HtmlError, RobotsWishes, document_to_markdown, page_to_markdown};

fn base() -> Url {
    Url::parse("https://example.com/docs/page.html").unwrap()
}

/// The Markdown of a body, without the final line break.
fn markdown(body: &str) -> String {
    let page = page_to_markdown(&format!("<!doctype html><body>{body}"), &base(), "chroma-sync").unwrap();
    page.markdown.trim_end().to_owned()
}

fn assert_markdown(cases: &[(&str, &str)]) {
    for (html, wanted) in cases {
        assert_eq!(markdown(html), *wanted, "{html}");
    }
}

#[test]
fn headings_paragraphs_and_line_breaks_are_kept() {
    assert_markdown(&[
        (
            "<h1>One</h1><p>a\n  b</p><h3>Three</h3>c",
            "# One\n\na b\n\n### Three\n\nc",
        ),
        ("<p>a<br>b<br/></p>", "a  \nb"),
        ("<div>a<div>b</div>c</div>", "a\n\nb\n\nc"),
        (
            "<h2><button>Question</button></h2><p>Answer",
            "## Question\n\nAnswer",
        ),
        ("<h2></h2><p> </p>", ""),
    ]);
}

#[test]
fn emphasis_closes_up_with_its_words() {
    assert_markdown(&[
        ("a <b> bold </b>b", "a **bold** b"),
        ("<em>x</em><strong>y</strong>", "*x***y**"),
        ("<b>a</b><b>b</b>", "**ab**"),
        ("<b><strong>a</strong></b>", "**a**"),
        ("<i></i>icon <i class=icon> </i>", "icon"),
        ("<h2><b>Bold</b> title</h2>", "## Bold title"),
        ("<del>old</del> new", "~~old~~ new"),
    ]);
}

#[test]
fn code_is_kept_as_it_is_shown_with_its_language() {
    assert_markdown(&[
        ("Use <code>a_*b</code>.", "Use `a_*b`."),
        ("<code>a`b</code>", "``a`b``"),
        ("<pre>\n x = 1\n   y\n\n</pre>", "```\n x = 1\n   y\n```"),
        (
            "<pre><code class='language-rust'>fn main() {}\n</code></pre>",
            "```rust\nfn main() {}\n```",
        ),
        (
            "<div class='highlight-python3 notranslate'><div class=highlight><pre><span></span><span class=kn>import</span> json\n</pre></div></div>",
            "```python\nimport json\n```",
        ),
        ("<div class='highlight-default'><pre>a</pre></div>", "```\na\n```"),
        ("<pre>a```b</pre>", "````\na```b\n````"),
        ("<pre class='sourceCode bash'>ls</pre>", "```bash\nls\n```"),
        ("<pre><div>a</div><div>b</div></pre>", "```\na\nb\n```"),
        ("<pre>a<br>b</pre>", "```\na\nb\n```"),
        (
            "<table class=highlighttable><tr><td class=linenos><pre>1\n2</pre></td><td class=code><pre>a\nb</pre></td></tr></table>",
            "```\na\nb\n```",
        ),
    ]);
}

#[test]
fn lists_nest_and_count() {
    assert_markdown(&[
        ("<ul><li>a<li>b</ul>", "- a\n- b"),
        ("<ol start=3><li>a</li><li>b</li></ol>c", "3. a\n4. b\n\nc"),
        (
            "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>",
            "- a\n  - b\n- c",
        ),
        (
            "<ol><li><p>a</p><p>b</p></li><li><p>c</p></li></ol>",
            "1. a\n\n   b\n\n2. c",
        ),
        ("<ul><li><pre>x\ny</pre></li></ul>", "- ```\n  x\n  y\n  ```"),
        ("<ul><li></li><li>a</li></ul>", "- a"),
        ("<dl><dt>term</dt><dd>meaning</dd></dl>", "**term**\n\nmeaning"),
        (
            "<dl><dt class='sig sig-object py'><span>json.</span><span>dump</span>(<em>obj</em>)<a class=headerlink href='#x'>¶</a></dt><dd>Writes.</dd></dl>",
            "`json.dump(obj)`\n\nWrites.",
        ),
    ]);
}

#[test]
fn what_unfolds_is_kept_with_its_summary() {
    assert_markdown(&[
        (
            "<details><summary>More</summary><p>Text</p></details>",
            "**More**\n\nText",
        ),
        (
            "<details><summary><a href='/src'>Source</a><h3>fn a()</h3></summary><p>Text</p></details>",
            "[Source](https://example.com/src)\n\n### fn a()\n\nText",
        ),
        ("<h1>Struct A <button>Copy path</button></h1>", "# Struct A"),
    ]);
}

#[test]
fn quotes_are_marked_on_every_line() {
    assert_markdown(&[
        (
            "<blockquote><p>a</p><p>b</p></blockquote><p>c",
            "> a\n>\n> b\n\nc",
        ),
        (
            "<p>a</p><blockquote>b<ul><li>c</li></ul></blockquote>",
            "a\n\n> b\n>\n> - c",
        ),
    ]);
}

#[test]
fn tables_of_data_are_kept_and_tables_for_layout_are_not() {
    assert_markdown(&[
        (
            "<table><caption>Sizes</caption><thead><tr><th>Name<th>Size</thead><tr><td>a|b<td><b>1</b></table>",
            "Sizes\n\n| Name | Size |\n| --- | --- |\n| a\\|b | **1** |",
        ),
        (
            "<table><tr><td>a<td>b<tr><td colspan=2>c<tr><td>d</table>",
            "| a | b |\n| --- | --- |\n| c | |\n| d | |",
        ),
        (
            "<table><tr><th>k<th>v<tr><td rowspan=2>x<td>1<tr><td>2</table>",
            "| k | v |\n| --- | --- |\n| x | 1 |\n| x | 2 |",
        ),
        (
            "<table><tr><td><h2>Left</h2><td>right</table>",
            "## Left\n\nright",
        ),
        (
            "<table role=presentation><tr><td>a<td>b<tr><td>c<td>d</table>",
            "a\n\nb\n\nc\n\nd",
        ),
        (
            "<table><tr><td>only<tr><td>one column</table>",
            "only\n\none column",
        ),
    ]);
}

#[test]
fn links_are_absolute_and_those_into_the_page_are_text() {
    assert_markdown(&[
        (
            "<a href='../a b(1).html'>x</a>",
            "[x](https://example.com/a%20b%281%29.html)",
        ),
        ("<a href='//example.org'>x</a>", "[x](https://example.org/)"),
        (
            "<a href='#part'>x</a> <a href='javascript:y()'>y</a> <a>z</a>",
            "x y z",
        ),
        ("<a href=/a></a>b", "b"),
        (
            "<a href=/a><code>f()</code></a>",
            "[`f()`](https://example.com/a)",
        ),
        ("<a href=/a><h3>Card</h3><p>text</p></a>", "### Card\n\ntext"),
        ("a <a href=/b> b </a>c", "a [b](https://example.com/b) c"),
        ("<h2>Title<a href='#title'>¶</a></h2>", "## Title"),
    ]);
}

#[test]
fn images_leave_their_alternative_text() {
    assert_markdown(&[
        (
            "<img src=a.png alt='A  cat'>",
            "![A cat](https://example.com/docs/a.png)",
        ),
        ("<img src='data:image/png;base64,xx' alt=dot>", "dot"),
        ("<img src=a.png alt=''>b", "b"),
        ("<math alttext='x^2'><mi>x</mi></math>", "$x^2$"),
    ]);
}

#[test]
fn what_would_read_as_markup_is_escaped_and_nothing_else() {
    assert_markdown(&[
        ("snake_case_name and 2 * 3", "snake_case_name and 2 * 3"),
        ("*not* _so_ `c`", "\\*not\\* \\_so\\_ \\`c\\`"),
        ("&lt;b&gt; 1 &lt; 2", "\\<b> 1 < 2"),
        ("&amp;lt; AT&amp;T", "\\&lt; AT&T"),
        (
            "<p># no heading</p><p>1. no list</p><p>- none</p><p>* </p>",
            "\\# no heading\n\n1\\. no list\n\n\\- none\n\n\\*",
        ),
        ("<p>#5 and 1.5 and -x</p>", "#5 and 1.5 and -x"),
        ("<h2>1. Scope</h2><p>Text</p>", "## 1. Scope\n\nText"),
        ("<p>a[0](b)</p>", "a[0\\](b)"),
        ("soft\u{ad}hyphen\u{200b} and\u{a0}blank", "softhyphen and blank"),
    ]);
}

#[test]
fn what_surrounds_the_content_is_left_out() {
    let page = "<title>T &amp; U</title><body><header><a href=/>Home</a></header><nav>Menu</nav>
        <main><article><header><h1>Title</h1></header><p>Text</p><aside>Ad</aside>
        <aside class='admonition note'>Note</aside><div hidden>h</div><p style='display: none'>n</p>
        <script>s()</script><form><input><p>In a form</p></form></article></main>
        <footer>Imprint</footer>";
    assert_eq!(markdown(page), "# Title\n\nText\n\nNote\n\nIn a form");
}

#[test]
fn the_content_is_main_then_an_article_that_holds_most_then_the_body() {
    let long = "long text ".repeat(30);
    let long = long.trim();
    assert_markdown(&[
        (&format!("<p>before</p><main>{long}</main><p>after</p>"), long),
        (&format!("<p>before</p><div role=main>{long}</div>"), long),
        (&format!("<p>menu</p><article>{long}</article>"), long),
        (&format!("<p>menu</p><div id=content>{long}</div>"), long),
        (
            "<article>one</article><article>two</article><article>three</article>",
            "one\n\ntwo\n\nthree",
        ),
        (
            &format!("<div class=content>x</div><div>{long}</div>"),
            &format!("x\n\n{long}"),
        ),
    ]);
}

#[test]
fn a_page_without_a_heading_begins_with_its_title() {
    let page = page_to_markdown("<title>A_title*</title><p>Text</p>", &base(), "").unwrap();
    assert_eq!(page.title.as_deref(), Some("A_title*"));
    assert_eq!(page.markdown, "# A_title\\*\n\nText\n");
    let page = page_to_markdown("<title>T</title><h1>H</h1>", &base(), "").unwrap();
    assert_eq!(page.markdown, "# H\n");
    let page = page_to_markdown("<title>T</title><pre># comment</pre>", &base(), "").unwrap();
    assert_eq!(page.markdown, "# T\n\n```\n# comment\n```\n");
    let page = page_to_markdown(
        "<h1>Only <a href='#x'>a heading</a><a href='#x'>#</a></h1>",
        &base(),
        "",
    )
    .unwrap();
    assert_eq!(page.title.as_deref(), Some("Only a heading"));
}

#[test]
fn a_page_tells_where_it_leads_and_where_it_belongs() {
    let page = page_to_markdown(
        "<head><base href='/base/'><link rel='Canonical' href='own#x'><link rel=stylesheet href=s.css></head>
         <nav><a href=a>a</a></nav><a href='a#part'>again</a><a href='#here'>here</a><a href='mailto:x@y'>m</a>
         <a rel='nofollow noopener' href=ad>ad</a><map><area href=/area></map><a href='http://[bad'>bad</a>",
        &base(),
        "",
    )
    .unwrap();
    let links: Vec<&str> = page.links.iter().map(Url::as_str).collect();
    assert_eq!(links, ["https://example.com/base/a", "https://example.com/area"]);
    assert_eq!(page.canonical.unwrap().as_str(), "https://example.com/base/own");
}

#[test]
fn a_page_that_only_leads_on_has_a_link() {
    let links = |html: &str| -> Vec<String> {
        let page = page_to_markdown(html, &base(), "").unwrap();
        page.links.into_iter().map(String::from).collect()
    };
    let next = ["https://example.com/docs/latest/"];
    assert_eq!(links("<meta http-equiv=refresh content='0; url=latest/'>"), next);
    assert_eq!(
        links("<meta http-equiv=Refresh content=\"0;URL='latest/'\">"),
        next
    );
    assert_eq!(links("<frameset><frame src=latest/></frameset>"), next);
    assert_eq!(
        links("<meta http-equiv=refresh content=30>"),
        Vec::<String>::new()
    );
}

#[test]
fn a_page_may_speak_to_all_robots_or_to_one() {
    let wishes = |head: &str| page_to_markdown(head, &base(), "chroma-sync").unwrap().robots;
    let both = RobotsWishes {
        noindex: true,
        nofollow: true,
    };
    assert_eq!(wishes("<meta name=ROBOTS content='NoIndex , nofollow'>"), both);
    assert_eq!(wishes("<meta name=robots content=none>"), both);
    assert_eq!(wishes("<meta name=Chroma-Sync content=none>"), both);
    assert_eq!(
        wishes("<meta name=googlebot content=none>"),
        RobotsWishes::default()
    );
    assert_eq!(
        wishes("<meta name=robots content='index, follow, max-snippet:-1'>"),
        RobotsWishes::default()
    );
}

#[test]
fn a_document_without_an_address_keeps_relative_links() {
    let document = document_to_markdown("<title>T</title><h1>H</h1><a href='b.html'>b</a>").unwrap();
    assert_eq!(document.title.as_deref(), Some("T"));
    assert_eq!(document.markdown, "# H\n\n[b](b.html)\n");
}

#[test]
fn elements_that_nest_without_end_are_refused_and_deep_ones_become_text() {
    let bomb = "<div>".repeat(100_000);
    assert_eq!(
        document_to_markdown(&bomb),
        Err(HtmlError::TooDeep { limit: 1_024 })
    );
    let mixed = "<div><table><td></div>".repeat(30_000);
    assert!(matches!(
        document_to_markdown(&mixed),
        Err(HtmlError::TooDeep { .. })
    ));
    let deep = format!("{}deep <b>text</b>", "<ul><li>".repeat(400));
    let markdown = document_to_markdown(&deep).unwrap().markdown;
    assert!(markdown.trim_end().ends_with("deep text"), "{markdown}");
}

#[test]
fn more_elements_than_a_page_has_are_refused() {
    let html = "<b></b>".repeat(1_000_001);
    assert_eq!(
        document_to_markdown(&html),
        Err(HtmlError::TooLarge { limit: 1_000_000 })
    );
}

#[test]
fn unclosed_elements_of_an_old_page_are_no_depth() {
    let page = "<p>para<br><li>item".repeat(2_000) + &"<dt>term<dd>meaning".repeat(2_000);
    let markdown = document_to_markdown(&page).unwrap().markdown;
    assert_eq!(markdown.matches("para").count(), 2_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_text_is_converted(html in ".{0,200}") {
        document_to_markdown(&html).unwrap();
    }

    #[test]
    fn any_markup_is_converted(
        parts in prop::collection::vec(prop::sample::select(vec![
            "<p>", "</p>", "<ul>", "<li>", "</ul>", "<table>", "<tr>", "<td rowspan=3>", "<td colspan=9>", "<th>", "</table>",
            "<pre>", "</pre>", "<code>", "</code>", "<a href=x>", "</a>", "<b>", "</b>", "<i>", "<blockquote>", "</blockquote>",
            "<h1>", "</h1>", "<br>", "<img alt=a src=b>", "<template>", "</template>", "<svg>", "</svg>", "<math>", "<dl>", "<dt>",
            "<dd>", "<!--", "-->", "<form>", "<select>", "<option>", "<ol start=-9>", "text", " ", "\n", "*", "_", "`", "[x](y)",
            "<frameset>", "<body>", "<html>", "</body>", "<title>", "<base href=q>", "<noscript>", "<textarea>", "</textarea>",
        ]), 0..60)
    ) {
        let markdown = document_to_markdown(&parts.concat()).unwrap().markdown;
        // What is preformatted keeps its blank lines.
        prop_assert!(markdown.contains("```") || !markdown.contains("\n\n\n\n"), "{markdown}");
    }

    #[test]
    fn text_reads_as_itself(text in "[a-z*_`#<>&\\[\\]()!~ .\\-+=0-9|\\\\]{0,40}") {
        let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
        let markdown = document_to_markdown(&format!("<p>{escaped}</p>")).unwrap().markdown;
        let mut read = String::new();
        for event in pulldown_cmark::Parser::new_ext(&markdown, pulldown_cmark::Options::ENABLE_STRIKETHROUGH) {
            match event {
                pulldown_cmark::Event::Text(part) => read.push_str(&part),
                pulldown_cmark::Event::Start(pulldown_cmark::Tag::Paragraph)
                | pulldown_cmark::Event::End(pulldown_cmark::TagEnd::Paragraph) => {}
                other => prop_assert!(false, "{other:?} in {markdown:?}"),
            }
        }
        prop_assert_eq!(read.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
    }
}
