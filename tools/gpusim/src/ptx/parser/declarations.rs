//! What is declared: functions with their parameters and directives, and variables with their initial values.

use super::{Parser, Result};
use crate::ptx::ParseError;
use crate::ptx::ast::{Function, Initial, Operand, Space, Type, Variable};
use crate::ptx::lexer::Token;

impl Parser {
    pub(super) fn function(&mut self, kernel: bool) -> Result<Function> {
        while self.take_dot("noreturn") {}
        let returns = if self.is_mark('(') { self.parameters()? } else { Vec::new() };
        let line = self.line();
        let name = self.word("a function's name")?;
        let parameters = if self.is_mark('(') { self.parameters()? } else { Vec::new() };
        let (mut required_threads, mut max_threads) = (None, None);
        while let Some(Token::Dot(word)) = self.peek().cloned() {
            self.at += 1;
            let mut numbers = Vec::new();
            while let Some(&Token::Integer(value)) = self.peek() {
                self.at += 1;
                numbers.push(value as u32);
                self.take(',');
            }
            match word.as_str() {
                "reqntid" => {
                    let extent = |axis: usize| numbers.get(axis).copied().unwrap_or(1);
                    required_threads = Some([extent(0), extent(1), extent(2)]);
                }
                "maxntid" => max_threads = Some(numbers.iter().product()),
                "maxnreg" | "minnctapersm" | "maxnctapersm" | "noreturn" | "blocksareclusters" => {}
                "reqnctapercluster" | "maxclusterrank" if numbers.iter().all(|&n| n <= 1) => {}
                "explicitcluster" => {}
                other => {
                    return Err(ParseError::new(line, format!("the function directive .{other}")));
                }
            }
        }
        let body = if self.take(';') {
            None
        } else {
            self.expect('{')?;
            Some(self.body()?)
        };
        Ok(Function { name, kernel, parameters, returns, body, required_threads, max_threads, line })
    }

    /// `(.param .u64 a, .param .b8 b[16])`.
    fn parameters(&mut self) -> Result<Vec<Variable>> {
        self.expect('(')?;
        let mut parameters = Vec::new();
        while !self.take(')') {
            parameters.extend(self.variable(false)?);
            self.take(',');
        }
        Ok(parameters)
    }

    /// `.space .align n .vN .type name<n>`, `name[n][m] = {…}`, several by commas; `;` at the end when `closed`.
    pub(super) fn variable(&mut self, closed: bool) -> Result<Vec<Variable>> {
        let line = self.line();
        let (mut space, mut ty, mut align, mut width) = (None, None, None, 1);
        while let Some(Token::Dot(word)) = self.peek().cloned() {
            self.at += 1;
            match word.as_str() {
                "reg" => space = Some(Space::Reg),
                "param" => space = Some(Space::Param),
                // Inside a parameter's `.ptr .global .align 16` the space and alignment are of what it points to.
                "ptr" => {
                    while let Some(Token::Dot(word)) = self.peek().cloned() {
                        self.at += 1;
                        if word == "align" {
                            self.integer("an alignment")?;
                        }
                    }
                }
                "local" => space = Some(Space::Local),
                "shared" | "shared::cta" => space = Some(Space::Shared),
                "global" => space = Some(Space::Global),
                "const" => space = Some(Space::Const),
                "align" => align = Some(self.integer("an alignment")? as usize),
                "v2" => width = 2,
                "v4" => width = 4,
                "attribute" => {
                    return Err(ParseError::new(line, "the variable directive .attribute"));
                }
                other => match Type::parse(other) {
                    Some(parsed) => ty = Some(parsed),
                    None => return Err(ParseError::new(line, format!("the directive .{other}"))),
                },
            }
        }
        let (Some(space), Some(ty)) = (space, ty) else {
            return self.fail("a state space and a type");
        };
        let mut declared = Vec::new();
        loop {
            let name = self.word("a variable's name")?;
            let (mut count, mut range) = (width, None);
            if self.take('<') {
                range = Some(self.integer("a number of registers")? as usize);
                self.expect('>')?;
            }
            while self.take('[') {
                count *= if self.is_mark(']') { 0 } else { self.integer("an array's length")? as usize };
                self.expect(']')?;
            }
            let initial = if self.take('=') { self.initial()? } else { Vec::new() };
            if count == 0 && !initial.is_empty() {
                count = initial.len();
            }
            let align = align.unwrap_or(ty.size() * width).max(1);
            declared.push(Variable { name, space, ty, count, align, initial, range, line });
            if !closed || !self.take(',') {
                break;
            }
        }
        if closed {
            self.expect(';')?;
        }
        Ok(declared)
    }

    fn initial(&mut self) -> Result<Vec<Initial>> {
        if self.take('{') {
            let mut values = Vec::new();
            while !self.take('}') {
                values.extend(self.initial()?);
                self.take(',');
            }
            return Ok(values);
        }
        Ok(vec![match self.operand()? {
            Operand::Integer(bits) | Operand::Double(bits) => Initial::Bits(bits),
            Operand::Single(bits) => Initial::Bits(bits.into()),
            Operand::Name(name) if name == "generic" => {
                self.expect('(')?;
                let name = self.word("a variable's name")?;
                self.expect(')')?;
                Initial::Address(name)
            }
            Operand::Name(name) => Initial::Address(name),
            _ => return self.fail("an initial value"),
        }])
    }
}
