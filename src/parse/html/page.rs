//! What a crawler asks of a page beside its text.

use std::collections::HashSet;

use url::Url;

use super::{
    RobotsWishes,
    content::is_permalink,
    dom::{Document, Element, NodeId, ROOT},
    inline::collapse,
};

/// The most links taken from one page.
const MAX_LINKS: usize = 10_000;
/// The longest URL that is taken, in bytes. Browsers and servers agree on about this much.
const MAX_URL_BYTES: usize = 2_048;
/// The longest title, in bytes.
const MAX_TITLE_BYTES: usize = 1_024;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) title: Option<String>,
    /// What relative links are relative to.
    pub(super) base: Option<Url>,
    pub(super) canonical: Option<Url>,
    pub(super) links: Vec<Url>,
    pub(super) robots: RobotsWishes,
}

/// Looks at all elements once. Without an address only absolute links are found.
pub(super) fn read(document: &Document, address: Option<&Url>, robot: &str) -> Facts {
    let mut facts = Facts {
        base: address.cloned(),
        ..Facts::default()
    };
    let mut heading = None;
    let mut links = Vec::new();
    let mut canonical = None;
    let mut has_base = false;
    let elements = document
        .walk(ROOT, |_, element| matches!(&*element.name, "template" | "svg"))
        .filter_map(|id| Some((id, document.element(id)?)));
    for (id, element) in elements {
        match &*element.name {
            "title" if facts.title.is_none() => facts.title = text_of(document, id),
            "h1" if heading.is_none() => heading = text_of(document, id),
            "base" if !has_base => {
                if let Some(href) = element.attribute("href") {
                    has_base = true;
                    facts.base = resolve(address, href).or(facts.base);
                }
            }
            "meta" => {
                facts.robots = facts.robots.or(wishes(element, robot));
                links.extend(refresh(element));
            }
            "frame" if links.len() < MAX_LINKS => links.extend(element.attribute("src")),
            "link" if canonical.is_none() && has_word(element, "rel", "canonical") => {
                canonical = element.attribute("href");
            }
            "a" | "area" if links.len() < MAX_LINKS && !has_word(element, "rel", "nofollow") => {
                links.extend(element.attribute("href"));
            }
            _ => {}
        }
    }
    facts.title = facts.title.or(heading);
    facts.canonical = canonical.and_then(|href| resolve(facts.base.as_ref(), href));
    let mut seen = HashSet::new();
    facts.links = links
        .into_iter()
        .filter(|href| !href.trim_start().starts_with('#'))
        .filter_map(|href| resolve(facts.base.as_ref(), href))
        .filter(|link| seen.insert(link.clone()))
        .collect();
    facts
}

fn text_of(document: &Document, id: NodeId) -> Option<String> {
    let mut text = collapse(&document.raw_text(id, |id, element| is_permalink(document, id, element)));
    text.truncate(text.floor_char_boundary(MAX_TITLE_BYTES));
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn has_word(element: &Element, attribute: &str, word: &str) -> bool {
    element
        .words(attribute)
        .any(|found| found.eq_ignore_ascii_case(word))
}

fn wishes(element: &Element, robot: &str) -> RobotsWishes {
    let name = element.attribute("name").unwrap_or_default().trim();
    let addressed =
        name.eq_ignore_ascii_case("robots") || (!robot.is_empty() && name.eq_ignore_ascii_case(robot));
    match element.attribute("content") {
        Some(content) if addressed => RobotsWishes::parse(content),
        Some(_) | None => RobotsWishes::default(),
    }
}

/// Where `<meta http-equiv=refresh content="0; url=...">` leads, which is how pages without a server redirect.
fn refresh(element: &Element) -> Option<&str> {
    element
        .attribute("http-equiv")
        .filter(|name| name.trim().eq_ignore_ascii_case("refresh"))?;
    let (_, target) = element.attribute("content")?.split_once([';', ','])?;
    let (name, url) = target.split_once('=')?;
    let url = url.trim().trim_matches(['"', '\'']);
    (name.trim().eq_ignore_ascii_case("url") && !url.is_empty()).then_some(url)
}

/// The URL that `href` leads to, without its fragment, if it is one that can be fetched.
fn resolve(base: Option<&Url>, href: &str) -> Option<Url> {
    if href.len() > MAX_URL_BYTES {
        return None;
    }
    let mut url = Url::options().base_url(base).parse(href.trim()).ok()?;
    url.set_fragment(None);
    (matches!(url.scheme(), "http" | "https") && url.as_str().len() <= MAX_URL_BYTES).then_some(url)
}
