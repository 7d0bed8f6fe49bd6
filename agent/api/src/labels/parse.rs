//! Selectors as text, with upstream's words for what is wrong.

use super::{Operator, Requirement, SelectorError, key_complaints, value_complaints};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Sign(text) => text,
            Self::End => "",
        }
    }
}

/// The requirements of a text.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut made = Vec::new();
    loop {
        match parser.peek() {
            Token::End => return Ok(made),
            Token::Word(_) | Token::Sign("!") => {
                let requirement = parser.requirement();
                made.push(requirement.map_err(|e| SelectorError::Syntax(format!("unable to parse requirement: {e}")))?);
            }
            other => return Err(found(other, "!, identifier, or 'end of string'")),
        }
        match parser.next() {
            Token::End => return Ok(made),
            Token::Sign(",") => match parser.peek() {
                Token::Word(_) | Token::Sign("!") => {}
                other => return Err(found(other, "identifier after ','")),
            },
            other => return Err(found(other, "',' or 'end of string'")),
        }
    }
}

fn found(token: Token<'_>, expected: &str) -> SelectorError {
    SelectorError::Syntax(format!("found '{}', expected: {expected}", token.text()))
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    let is_sign = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    while let Some(first) = rest.chars().next() {
        let len = if is_sign(first) {
            let double = matches!(rest.get(..2), Some("==" | "!="));
            let len = if double { 2 } else { 1 };
            out.push(Token::Sign(&rest[..len]));
            len
        } else {
            let len = rest.find(|c: char| is_sign(c) || c.is_whitespace()).unwrap_or(rest.len());
            out.push(Token::Word(&rest[..len]));
            len
        };
        rest = rest[len..].trim_start();
    }
    out
}

/// What is wrong with a part of a requirement.
fn invalid(part: &str, value: &str, why: &str) -> String {
    format!("{part}: Invalid value: {value:?}: {why}")
}

/// Fails if the operator or its label cannot have these values; all that are wrong are told.
fn check_values(key: &str, operator: Operator, values: &[String]) -> Result<(), SelectorError> {
    let is_number = matches!(operator, Operator::GreaterThan | Operator::LessThan);
    let numbers = values.iter().enumerate().filter(|(_, v)| is_number && v.parse::<i64>().is_err());
    let why = "for 'Gt', 'Lt' operators, the value must be an integer";
    let mut wrong: Vec<String> = numbers.map(|(i, value)| invalid(&format!("values[{i}]"), value, why)).collect();
    for (i, value) in values.iter().enumerate() {
        let complaints = value_complaints(value);
        if !complaints.is_empty() {
            wrong.push(invalid(&format!("values[{i}][{key}]"), value, &complaints.join("; ")));
        }
    }
    match wrong.as_mut_slice() {
        [] => Ok(()),
        [one] => Err(SelectorError::Syntax(std::mem::take(one))),
        many => Err(SelectorError::Syntax(format!("[{}]", many.join(", ")))),
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = self.peek() == Token::Sign("!");
        if absent {
            self.at += 1;
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(found(other, "identifier")),
        };
        let complaints = key_complaints(key);
        if !complaints.is_empty() {
            return Err(SelectorError::Syntax(invalid("<nil>", key, &complaints.join("; "))));
        }
        if absent {
            return Ok(Requirement { key: key.to_owned(), operator: Operator::DoesNotExist, values: Vec::new() });
        }
        if matches!(self.peek(), Token::End | Token::Sign(",")) {
            return Ok(Requirement { key: key.to_owned(), operator: Operator::Exists, values: Vec::new() });
        }
        let (operator, list) = match self.next() {
            Token::Word("in") => (Operator::In, true),
            Token::Word("notin") => (Operator::NotIn, true),
            Token::Sign("=" | "==") => (Operator::In, false),
            Token::Sign("!=") => (Operator::NotIn, false),
            Token::Sign(">") => (Operator::GreaterThan, false),
            Token::Sign("<") => (Operator::LessThan, false),
            other => return Err(found(other, "in, notin, =, ==, !=, gt, lt")),
        };
        let values = if list { self.list()? } else { vec![self.value()?] };
        check_values(key, operator, &values)?;
        Ok(Requirement { key: key.to_owned(), operator, values })
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Sign(",") => Ok(String::new()),
            Token::Word(word) => {
                self.at += 1;
                Ok(word.to_owned())
            }
            other => Err(found(other, "identifier")),
        }
    }

    fn list(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Sign("(") => {}
            other => return Err(SelectorError::Syntax(format!("found '{}' expected: '('", other.text()))),
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.push(word.to_owned());
                    match self.next() {
                        Token::Sign(",") => {}
                        Token::Sign(")") => break,
                        other => return Err(found(other, "',' or ')'")),
                    }
                }
                Token::Sign(",") => values.push(String::new()),
                Token::Sign(")") => {
                    values.push(String::new());
                    break;
                }
                other => return Err(found(other, "',', ')' or identifier")),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}
