use super::*;

fn kinds(text: &str) -> Vec<(Kind, &str)> {
    tokens(text).into_iter().map(|token| (token.kind, token.text)).collect()
}

#[test]
fn comments_strings_and_lifetimes_are_told_apart() {
    use Kind::{Comment, Literal, Mark, Word};
    assert_eq!(
        kinds("a // b \"\n'c' 'd"),
        [(Word, "a"), (Comment, "// b \""), (Literal, "'c'"), (Word, "'d")]
    );
    assert_eq!(
        kinds(r#""//\"" b"x" '\'' b'{' 1_0"#),
        [
            (Literal, r#""//\"""#),
            (Literal, "b\"x\""),
            (Literal, r"'\''"),
            (Literal, "b'{'"),
            (Literal, "1_0"),
        ]
    );
    assert_eq!(kinds("r#\"a\"b\"# x"), [(Literal, "r#\"a\"b\"#"), (Word, "x")]);
    assert_eq!(kinds("/* a /* b */ c */ d"), [(Comment, "/* a /* b */ c */"), (Word, "d")]);
    assert_eq!(kinds("é;"), [(Word, "é"), (Mark, ";")]);
}

#[test]
fn lines_are_counted_through_literals_that_span_them() {
    let tokens = tokens("\"a\nb\"\n/* c\n */ d");
    assert_eq!(tokens.iter().map(|token| token.line).collect::<Vec<_>>(), [1, 3, 4]);
}

#[test]
fn a_function_ends_with_its_own_brace() {
    let text = "fn one(x: [u8; 2]) -> u8 {\n  let c = '}';\n  \"}\" // }\n  if x { y }\n}\nfn two();\nfn three() {}\n";
    assert_eq!(functions(&tokens(text)), [("one", 1..6), ("three", 7..8)]);
}

#[test]
fn types_of_functions_are_not_functions() {
    assert_eq!(functions(&tokens("type T = fn(u8);\nconst A: fn() = { x };")), []);
}

#[test]
fn test_modules_and_test_functions_are_known() {
    let text =
        "fn a() {}\n#[cfg(test)]\nmod tests {\n}\n#[test]\nfn b() {\n}\n#[derive(Debug)]\nstruct S {}\n";
    assert_eq!(test_lines(&tokens(text)), [2..5, 5..8]);
}
