//! The page at `/`: the address map. All of it is in the program, and it asks nobody but this
//! daemon.

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpResponse, web};

/// The parts of the page: path, media type, content.
const PARTS: [(&str, &str, &str); 13] = [
    ("/", HTML, include_str!("index.html")),
    ("/page/style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("/page/icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("/page/main.js", SCRIPT, include_str!("main.js")),
    ("/page/data.js", SCRIPT, include_str!("data.js")),
    ("/page/words.js", SCRIPT, include_str!("words.js")),
    ("/page/layout.js", SCRIPT, include_str!("layout.js")),
    ("/page/map.js", SCRIPT, include_str!("map.js")),
    ("/page/draw.js", SCRIPT, include_str!("draw.js")),
    ("/page/panels.js", SCRIPT, include_str!("panels.js")),
    ("/page/block.js", SCRIPT, include_str!("block.js")),
    ("/page/search.js", SCRIPT, include_str!("search.js")),
    ("/page/chart.js", SCRIPT, include_str!("chart.js")),
];

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Scripts, styles and data come from this daemon alone, nothing runs that is written into the
/// page itself, and no other page shows this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Adds the routes of the page.
pub(super) fn reads(config: &mut web::ServiceConfig) {
    for (path, media_type, content) in PARTS {
        config.route(path, web::get().to(move || async move { part(media_type, content) }));
    }
}

fn part(media_type: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(media_type)
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        // Another version of the daemon has another page.
        .insert_header((CACHE_CONTROL, "no-cache"))
        .body(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that the scripts must not have: the policy would keep them from working, or they
    /// turn names into markup, or they lead to other hosts.
    const FORBIDDEN: [&str; 9] = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        " style=",
        "javascript:",
        "//",
    ];
    /// The longest part, in lines.
    const LINES_MAX: usize = 300;

    fn without_comments(path: &str, content: &str) -> String {
        let is_code = |line: &&str| !path.ends_with(".js") || !line.trim_start().starts_with("//");
        let lines = content.lines().filter(is_code);
        // The name of a namespace is no place to go to.
        lines
            .map(|line| line.replace("http://www.w3.org/2000/svg", ""))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn every_part_is_served_and_keeps_to_the_policy() {
        let mut named = vec!["/"];
        for (path, _, content) in PARTS {
            assert!(content.lines().count() <= LINES_MAX, "{path} is too long to read");
            let code = without_comments(path, content);
            for word in FORBIDDEN {
                assert!(!code.contains(word), "{path} has {word:?}");
            }
            let handlers = ["onclick", "onload", "onerror", "onchange", "oninput", "onkeydown"];
            let inline = handlers.iter().find(|name| content.contains(&format!(" {name}=\"")));
            assert_eq!(inline, None, "{path}: handlers are added by the scripts");
            let quoted = content.split('"').skip(1).step_by(2);
            named.extend(quoted.filter_map(|text| {
                let file = text.strip_prefix("/page/").or_else(|| text.strip_prefix("./"))?;
                PARTS
                    .iter()
                    .map(|part| part.0)
                    .find(|part| part.strip_prefix("/page/") == Some(file))
                    .or_else(|| panic!("{path} names {text}, which is not served"))
            }));
        }
        for (path, ..) in PARTS {
            assert!(named.contains(&path), "nothing asks for {path}");
        }
    }
}
