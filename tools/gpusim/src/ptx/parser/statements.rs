//! What a function does: statements, instructions and their operands.

use super::{Parser, Result};
use crate::ptx::ast::{Instruction, Operand, Statement};
use crate::ptx::lexer::Token;

impl Parser {
    pub(super) fn body(&mut self) -> Result<Vec<Statement>> {
        let mut statements = Vec::new();
        loop {
            match self.peek() {
                Some(Token::Mark('}')) => {
                    self.at += 1;
                    return Ok(statements);
                }
                Some(Token::Mark('{')) => {
                    self.at += 1;
                    statements.push(Statement::Block(self.body()?));
                }
                Some(Token::Mark(';')) => self.at += 1,
                Some(Token::Dot(word)) if word == "pragma" => self.pragma()?,
                Some(Token::Dot(_)) => {
                    let declared = self.variable(true)?;
                    statements.extend(declared.into_iter().map(Statement::Variable));
                }
                Some(Token::Word(_)) if self.lexemes.get(self.at + 1).map(|l| &l.token) == Some(&Token::Mark(':')) => {
                    let name = self.word("a label")?;
                    self.at += 1;
                    statements.push(self.labelled(name)?);
                }
                Some(_) => statements.push(Statement::Instruction(self.instruction()?)),
                None => return self.fail("a function's `}`"),
            }
        }
    }

    /// What stands behind `name:`: usually nothing, but a table of branch targets has a name too.
    fn labelled(&mut self, name: String) -> Result<Statement> {
        if !self.take_dot("branchtargets") {
            return Ok(Statement::Label(name));
        }
        let mut targets = vec![self.word("a label")?];
        while self.take(',') {
            targets.push(self.word("a label")?);
        }
        self.expect(';')?;
        Ok(Statement::Targets(name, targets))
    }

    fn instruction(&mut self) -> Result<Instruction> {
        let guard = if self.take('@') {
            let negated = self.take('!');
            Some((self.word("a predicate")?, negated))
        } else {
            None
        };
        let line = self.line();
        let opcode = self.word("an instruction")?;
        let mut modifiers = Vec::new();
        while let Some(Token::Dot(word)) = self.peek().cloned() {
            self.at += 1;
            modifiers.push(word);
        }
        let mut operands = Vec::new();
        while !self.take(';') {
            operands.push(self.operand()?);
            if !self.take(',') && !self.is_mark(';') {
                return self.fail("`,` or `;`");
            }
        }
        Ok(Instruction { line, guard, opcode, modifiers, operands })
    }

    fn list(&mut self, close: char) -> Result<Vec<Operand>> {
        let mut operands = Vec::new();
        while !self.take(close) {
            operands.push(self.operand()?);
            if !self.take(',') && !self.is_mark(close) {
                return self.fail(&format!("`,` or `{close}`"));
            }
        }
        Ok(operands)
    }

    pub(super) fn operand(&mut self) -> Result<Operand> {
        let first = match self.peek().cloned() {
            Some(Token::Mark('{')) => {
                self.at += 1;
                Operand::Vector(self.list('}')?)
            }
            Some(Token::Mark('(')) => {
                self.at += 1;
                Operand::Arguments(self.list(')')?)
            }
            Some(Token::Mark('[')) => {
                self.at += 1;
                self.address()?
            }
            Some(Token::Mark('!')) => {
                self.at += 1;
                Operand::Not(self.word("a predicate")?)
            }
            Some(Token::Mark('-')) => {
                self.at += 1;
                match self.next() {
                    Some(Token::Integer(value)) => Operand::Integer(value.wrapping_neg()),
                    Some(Token::Double(bits)) => Operand::Double((-f64::from_bits(bits)).to_bits()),
                    _ => return self.fail("a number after `-`"),
                }
            }
            Some(Token::Integer(value)) => {
                self.at += 1;
                Operand::Integer(value)
            }
            Some(Token::Single(bits)) => {
                self.at += 1;
                Operand::Single(bits)
            }
            Some(Token::Double(bits)) => {
                self.at += 1;
                Operand::Double(bits)
            }
            Some(Token::Word(_)) => self.name()?,
            _ => return self.fail("an operand"),
        };
        if self.take('|') {
            let second = self.name()?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    /// A name, with its component: `%tid.x`, `%r1`, `_`.
    fn name(&mut self) -> Result<Operand> {
        let mut name = self.word("a name")?;
        if name == "_" {
            return Ok(Operand::Sink);
        }
        while let Some(Token::Dot(word)) = self.peek().cloned() {
            self.at += 1;
            name = format!("{name}.{word}");
        }
        Ok(Operand::Name(name))
    }

    /// What stands behind `[`.
    fn address(&mut self) -> Result<Operand> {
        let base = match self.peek().cloned() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Some(word)
            }
            _ => None,
        };
        let mut offset = 0i64;
        loop {
            if self.take(']') {
                return Ok(Operand::Address(base, offset));
            }
            if self.take(',') {
                let Some(base) = base else {
                    return self.fail("a base before `,`");
                };
                let mut parts = vec![Operand::Address(Some(base), offset)];
                parts.extend(self.list(']')?);
                return Ok(Operand::Tensor(parts));
            }
            self.take('+');
            let negative = self.take('-');
            let value = self.integer("an offset")? as i64;
            offset = offset.wrapping_add(if negative { value.wrapping_neg() } else { value });
        }
    }
}
