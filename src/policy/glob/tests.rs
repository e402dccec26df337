use super::*;
use proptest::prelude::*;

fn glob(text: &str) -> Glob {
    Glob::parse(text, b"/:").unwrap()
}

/// As the rules are told, by trying everything.
fn naive(pattern: &[char], text: &[char]) -> bool {
    let separates = |c: &char| matches!(c, '/' | ':');
    match pattern {
        [] => text.is_empty(),
        ['*', '*', rest @ ..] => (1..=text.len()).any(|taken| naive(rest, &text[taken..])),
        ['*', rest @ ..] => {
            let within = text.iter().take_while(|c| !separates(c)).count();
            (1..=within).any(|taken| naive(rest, &text[taken..]))
        }
        [letter, rest @ ..] => text.first() == Some(letter) && naive(rest, &text[1..]),
    }
}

fn fits_naively(pattern: &str, text: &str) -> bool {
    naive(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
}

#[test]
fn wildcards_take_what_they_are_said_to_take() {
    let rows = [
        ("a", vec!["a"], vec!["", "b", "aa", "a/", "/a"]),
        ("a/*", vec!["a/b", "a/bc"], vec!["a", "a/", "a/b/c", "ab", "a:b", "b/a/b"]),
        ("*", vec!["a", "ab"], vec!["", "a/b", "a:b", "/"]),
        ("a*", vec!["ab", "abc"], vec!["a", "a/b", "ba"]),
        ("*a*", vec!["bab", "aaa", "baaab"], vec!["a", "ab", "ba", "b/a", "bab/a"]),
        ("a/**", vec!["a/b", "a/b/c", "a/b:c/d"], vec!["a", "a/", "ab", "b/a/b"]),
        ("**", vec!["a", "a/b", "a:b/c"], vec![""]),
        ("**/z", vec!["a/z", "a/b/z", "z/z/z"], vec!["z", "/z", "a/z/", "az"]),
        ("a/**/z", vec!["a/b/z", "a/b/c/z", "a/z/z"], vec!["a/z", "a//z", "a/b", "az"]),
        ("**/b/*", vec!["a/b/c", "b/b/b", "a/b/b/c"], vec!["b/c", "a/b", "a/b/c/d"]),
        ("**/b/**/d", vec!["a/b/c/d", "a/b/b/c/d/d"], vec!["a/b/d", "b/c/d", "a/b/c/d/e"]),
    ];
    for (pattern, fitting, others) in rows {
        for text in fitting {
            assert!(glob(pattern).fits(text), "{pattern} {text}");
        }
        for text in others {
            assert!(!glob(pattern).fits(text), "{pattern} {text}");
        }
    }
}

#[test]
fn two_stars_stand_alone_or_not_at_all() {
    for text in ["a**", "**a", "a/b**", "a/**b/c", "***", "****", "a/***", "*/***/a", "a:**b"] {
        assert_eq!(Glob::parse(text, b"/:"), None, "{text}");
    }
}

/// The steps of a match that fails.
fn steps(pattern: &str, text: &str) -> usize {
    let glob = glob(pattern);
    let rest = text.as_bytes().strip_prefix(&*glob.prefix).unwrap();
    let mut attempt = Attempt::new(&glob, rest);
    let mut steps = 1;
    loop {
        match attempt.step() {
            Step::On => steps += 1,
            Step::Fits => panic!("{pattern} fits {text}"),
            Step::FitsNot => return steps,
        }
    }
}

#[test]
fn a_hostile_pattern_takes_no_more_steps_than_the_product_of_the_lengths() {
    let patterns = [
        "a*".repeat(500) + "b",
        "**/".repeat(500) + "b",
        "**/a/a*a/".repeat(100) + "b",
        "**/*a*a*a*a*a*/".repeat(60) + "b",
        "*".to_owned() + &"/*".repeat(300) + "/**/b",
        "**".to_owned() + &"/*a".repeat(300) + "b",
    ];
    let texts =
        ["a".repeat(2_000), "a/".repeat(1_000), "aaaaaaaaa/".repeat(200), "aa/a/".repeat(400), "/".repeat(2_000)];
    for pattern in &patterns {
        for text in &texts {
            if glob(pattern).prefix().len() <= 1 && text.as_bytes().starts_with(glob(pattern).prefix()) {
                let most = (pattern.len() + 2) * (text.len() + 2);
                let took = steps(pattern, text);
                assert!(took <= most, "{took} steps for {} by {}", pattern.len(), text.len());
            }
        }
    }
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![Just("**".to_owned()), "\\*|[ab]\\*?[ab]?|\\*[ab]\\*?|[ab]{1,3}|"]
}

/// Empty segments too, which subjects may have.
fn pattern() -> impl Strategy<Value = String> {
    (segment(), prop::collection::vec(("[/:]", segment()), 0..5))
        .prop_map(|(first, rest)| rest.into_iter().fold(first, |all, (end, next)| all + &end + &next))
}

/// One of the texts that a pattern fits.
fn fitting(pattern: &str, choices: &[String]) -> String {
    let mut choices = choices.iter().cycle();
    let mut text = String::new();
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        let many = rest.starts_with("**");
        match letter {
            '*' if many => text += choices.next().unwrap(),
            '*' => text.extend(choices.next().unwrap().chars().map(|c| if matches!(c, '/' | ':') { 'a' } else { c })),
            letter => text.push(letter),
        }
        rest = rest.get(if many { 2 } else { 1 }..).unwrap();
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn it_fits_what_the_rules_say(pattern in pattern(), text in "[ab/:]{0,12}") {
        prop_assert_eq!(glob(&pattern).fits(&text), fits_naively(&pattern, &text));
    }

    #[test]
    fn it_fits_what_it_was_filled_in_with(pattern in pattern(), choices in prop::collection::vec("[ab/:]{1,4}", 4)) {
        let text = fitting(&pattern, &choices);
        prop_assert!(fits_naively(&pattern, &text), "{} {}", pattern, text);
        prop_assert!(glob(&pattern).fits(&text), "{} {}", pattern, text);
    }

    /// No claim of covering is ever wrong.
    #[test]
    fn what_is_covered_fits(
        wide in pattern(),
        narrow in pattern(),
        choices in prop::collection::vec("[ab/:]{1,4}", 4),
    ) {
        if glob(&wide).covers(&glob(&narrow)) {
            let text = fitting(&narrow, &choices);
            prop_assert!(fits_naively(&wide, &text), "{} is not within {}: {}", narrow, wide, text);
        }
    }
}

#[test]
fn covering_is_seen() {
    let rows = [
        ("a/*", "a/b", true),
        ("a/*", "a/*", true),
        ("a/**", "a/*", true),
        ("a/**", "a/**", true),
        ("a/**", "a/*/**", true),
        ("a/**", "a/b*/**/c", true),
        ("**", "a/**/c", true),
        ("**/c", "a/**/c", true),
        ("*", "a*b", true),
        ("a*", "a*b*", true),
        ("*/**", "a/**", true),
        ("a/*", "a/**", false),
        ("a/*", "a/b/c", false),
        ("a/b", "a/*", false),
        ("a*", "*", false),
        ("a*", "a", false),
        ("**/**", "**", false),
        ("*/*", "**", false),
        ("a/**", "a", false),
        ("a/**/c", "a/c", false),
        ("a/**", "b/**", false),
    ];
    for (wide, narrow, covers) in rows {
        assert_eq!(glob(wide).covers(&glob(narrow)), covers, "{wide} {narrow}");
    }
}
