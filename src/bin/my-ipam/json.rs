//! As much of JSON as usual configurations and results have: ASCII, no escapes, whole numbers.
//! Whatever else comes is none of ours, which is never wrong to say.

/// How deep values may be nested.
const DEPTH_MAX: usize = 16;

/// Whether the text is one object, with white space around it.
pub(crate) fn is_object(text: &[u8]) -> bool {
    members(text, &mut |_, _| ()).is_some()
}

/// Calls `each` with every key and value of an object; none: it is not one of ours.
pub(crate) fn members<'t>(text: &'t [u8], each: &mut impl FnMut(&'t [u8], &'t [u8])) -> Option<()> {
    let end = object(text, space(text, 0), DEPTH_MAX, each)?;
    (space(text, end) == text.len()).then_some(())
}

/// The text of a string.
pub(crate) fn unquoted(value: &[u8]) -> Option<&[u8]> {
    let end = string(value, 0)?;
    (end == value.len()).then_some(())?;
    value.get(1..end.checked_sub(1)?)
}

/// Whether a text goes into a JSON string as it is.
pub(crate) fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

// Each of these is given where something begins, and says where it ends.

fn space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

fn is(text: &[u8], at: usize, byte: u8) -> Option<usize> {
    (*text.get(at)? == byte).then_some(at + 1)
}

fn string(text: &[u8], at: usize) -> Option<usize> {
    let mut end = is(text, at, b'"')?;
    loop {
        match text.get(end)? {
            b'"' => return Some(end + 1),
            b'\\' | 0..=0x1f | 0x7f.. => return None,
            _ => end += 1,
        }
    }
}

fn number(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    while text.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    let zero_first = end > at + 1 && *text.get(at)? == b'0';
    (end > at && !zero_first).then_some(end)
}

fn word(text: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    text.get(at..)?.starts_with(word).then_some(at + word.len())
}

fn value(text: &[u8], at: usize, depth: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => string(text, at),
        b'{' => object(text, at, depth.checked_sub(1)?, &mut |_, _| ()),
        b'[' => array(text, at, depth.checked_sub(1)?),
        b't' => word(text, at, b"true"),
        b'f' => word(text, at, b"false"),
        b'n' => word(text, at, b"null"),
        _ => number(text, at),
    }
}

fn array(text: &[u8], at: usize, depth: usize) -> Option<usize> {
    let mut at = space(text, is(text, at, b'[')?);
    if let Some(end) = is(text, at, b']') {
        return Some(end);
    }
    loop {
        at = space(text, value(text, at, depth)?);
        match text.get(at)? {
            b',' => at = space(text, at + 1),
            b']' => return Some(at + 1),
            _ => return None,
        }
    }
}

fn object<'t>(
    text: &'t [u8],
    at: usize,
    depth: usize,
    each: &mut impl FnMut(&'t [u8], &'t [u8]),
) -> Option<usize> {
    let mut at = space(text, is(text, at, b'{')?);
    if let Some(end) = is(text, at, b'}') {
        return Some(end);
    }
    loop {
        let key = string(text, at)?;
        let begin = space(text, is(text, space(text, key), b':')?);
        let end = value(text, begin, depth)?;
        each(text.get(at + 1..key.checked_sub(1)?)?, text.get(begin..end)?);
        at = space(text, end);
        match text.get(at)? {
            b',' => at = space(text, at + 1),
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
}
