//! Command lines of `leasehold`, parsed by its own definition and not run.

use clap::error::ErrorKind;

/// The ways in which the documents name the program.
const PROGRAMS: [&str; 3] = ["leasehold", "/leasehold", "target/*/release/leasehold"];
/// Words that stand for something else, and an example of it.
const PLACEHOLDERS: [(&str, &str); 4] =
    [("FILE...", "file"), ("bash|zsh|fish", "bash"), ("COMMAND", "status"), ("...", "x")];

/// Returns what is wrong with the command lines of `leasehold` in a command; `None`: there is none.
pub(super) fn leasehold(command: &str) -> Option<Vec<String>> {
    let words = words(command);
    let lines: Vec<Vec<String>> = words
        .split(|word| matches!(word.as_str(), "&&" | "|" | ";"))
        .filter_map(|line| {
            let by_cargo = ["cargo", "run", "--release", "--"];
            let is_cargo = line.len() > by_cargo.len() && line[..by_cargo.len()] == by_cargo;
            let at = match is_cargo {
                true => by_cargo.len() - 1,
                false => line.iter().position(|word| PROGRAMS.contains(&word.as_str()))?,
            };
            // A name among the arguments of another program is no command.
            let starts = at == 0 || is_cargo || line[at - 1] == "--";
            let args = line[at + 1..].iter().take_while(|word| *word != ">" && *word != "2>");
            starts.then(|| args.cloned().collect())
        })
        .collect();
    let wrong = |args: Vec<String>| parse(&args).err().map(|error| error.to_string());
    (!lines.is_empty()).then(|| lines.into_iter().filter_map(wrong).collect())
}

/// Returns what is wrong with a command in a sentence, where it may lack what a reader fills in;
/// `None`: it is no command.
pub(super) fn in_sentence(command: &str) -> Option<Option<String>> {
    let args: Vec<String> = words(command).into_iter().skip(1).collect();
    let error = match parse(&args) {
        Ok(()) => return Some(None),
        Err(error) => error,
    };
    let lacks =
        matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::MissingSubcommand)
            || error.to_string().contains("a value is required for")
            || error.to_string().contains("requires a subcommand");
    Some((!lacks).then(|| error.to_string()))
}

/// Parses arguments as the program does.
fn parse(args: &[String]) -> Result<(), clap::Error> {
    let example = |word: &String| {
        let known = PLACEHOLDERS.iter().find(|(name, _)| name == word);
        known.map_or_else(|| word.clone(), |(_, of)| (*of).to_owned())
    };
    let words = std::iter::once("leasehold".to_owned()).chain(args.iter().map(example));
    match leasehold::cli::definition().try_get_matches_from(words) {
        Ok(_) => Ok(()),
        Err(error) if !error.use_stderr() => Ok(()),
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Ok(()),
        Err(error) => Err(error),
    }
}

/// The words of a command as a shell has them, without its comment. Quotes are taken off.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn wrong_commands_are_noticed() {
    for good in [
        "leasehold node remove NAME --yes",
        "kubectl exec ds/leasehold -c daemon -- /leasehold node list",
        "cargo run --release -- demo --once",
        "leasehold check # looks",
    ] {
        assert_eq!(leasehold(good), Some(vec![]), "{good}");
    }
    for wrong in ["leasehold nodes", "a && leasehold check --all", "leasehold node remove"] {
        assert_eq!(leasehold(wrong).map(|of| of.len()), Some(1), "{wrong}");
    }
    assert_eq!(leasehold("helm install leasehold deploy/helm/leasehold"), None);
    assert_eq!(in_sentence("leasehold node remove"), Some(None));
    assert!(in_sentence("leasehold node remove --sure").flatten().is_some());
    assert_eq!(words("a 'b  c' \"d\"e # f"), ["a", "b  c", "de"]);
}
