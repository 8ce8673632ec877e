//! Finds the place of a value in a text: the way from a path such as `ipam.ranges[0][0].subnet` to
//! a line and a column, for people who look for it in an editor.

/// A line and a column, both from 1; the column counts bytes.
pub type Position = (usize, usize);

/// The place of the key, or of the item, at a path of a JSON text; of the last part of the path
/// that is there. The text must be JSON.
pub fn of(text: &[u8], path: &str) -> Position {
    let mut scanner = Scanner { text, at: 0 };
    scanner.blank();
    let mut found = scanner.at;
    for step in steps(path) {
        match scanner.go(&step) {
            Some(at) => found = at,
            None => break,
        }
    }
    position(text, found)
}

/// The line and the column of an offset.
pub fn position(text: &[u8], offset: usize) -> Position {
    let before = &text[..offset.min(text.len())];
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    (line, before.len() - start + 1)
}

/// A part of a path.
#[derive(PartialEq, Eq, Debug)]
enum Step<'a> {
    Key(&'a str),
    Item(usize),
}

fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let mut pieces = part.split('[');
        steps.extend(pieces.next().filter(|key| !key.is_empty()).map(Step::Key));
        let index = |piece: &str| piece.strip_suffix(']')?.parse().ok().map(Step::Item);
        steps.extend(pieces.filter_map(index));
    }
    steps
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or_default()
    }

    fn blank(&mut self) {
        while self.peek().is_ascii_whitespace() {
            self.at += 1;
        }
    }

    /// Goes to the value of a member or an item of the value that begins here. Returns where its
    /// key, or itself, begins. Keys count in any case, and the last one counts.
    fn go(&mut self, step: &Step<'_>) -> Option<usize> {
        let is_object = self.peek() == b'{';
        if !is_object && self.peek() != b'[' {
            return None;
        }
        self.at += 1;
        let (mut found, mut index) = (None, 0);
        loop {
            self.blank();
            match self.peek() {
                b',' => self.at += 1,
                b'}' | b']' | 0 => break,
                _ => {
                    let begin = self.at;
                    let mut is_it = *step == Step::Item(index);
                    if is_object {
                        self.string();
                        let key = self.text.get(begin + 1..self.at - 1).unwrap_or_default();
                        is_it = matches!(step, Step::Key(wanted)
                            if key.eq_ignore_ascii_case(wanted.as_bytes()));
                        self.blank();
                        self.at += 1; // the colon
                        self.blank();
                    }
                    if is_it {
                        found = Some((begin, self.at));
                    }
                    self.value();
                    index += 1;
                }
            }
        }
        let (begin, value) = found?;
        self.at = value;
        Some(begin)
    }

    fn string(&mut self) {
        self.at += 1;
        while !matches!(self.peek(), b'"' | 0) {
            self.at += if self.peek() == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
    }

    /// Passes a value, however deep it is.
    fn value(&mut self) {
        let mut depth = 0usize;
        loop {
            match self.peek() {
                0 => return,
                b'"' => self.string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                }
                _ => self.at += 1,
            }
            if depth == 0 && matches!(self.peek(), b',' | b'}' | b']' | 0) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_to_its_place() {
        let text = br#"{
  "name": "a, \"b\": {",
  "ipam": { "x": [1, [2], {"y": "]"}],
    "RANGES": [[ {}, {"subnet": 5,
      "subnet": 6} ]]
  }
}"#;
        for (path, place) in [
            ("", (1, 1)),
            ("name", (2, 3)),
            ("ipam", (3, 3)),
            ("ipam.x[2].y", (3, 28)),
            ("ipam.ranges", (4, 5)),
            ("ipam.ranges[0]", (4, 16)),
            ("ipam.ranges[0][1].subnet", (5, 7)),
            ("ipam.ranges[0][1].gateway", (4, 22)),
            ("ipam.ranges[7]", (4, 5)),
        ] {
            assert_eq!(of(text, path), place, "{path}");
        }
    }

    #[test]
    fn a_text_that_breaks_off_has_an_end() {
        let text = br#"{"ipam": {"ranges": [[{"subnet": "10"#;
        for end in 0..text.len() {
            of(&text[..end], "ipam.ranges[0][0].subnet");
        }
    }
}
