//! Tokens to a [`Module`].

use super::ParseError;
use super::ast::{Function, Initial, Instruction, Module, Operand, Space, Statement, Type, Variable};
use super::lexer::{Lexeme, Token, lex};

type Result<T> = std::result::Result<T, ParseError>;

/// Reads a module.
///
/// # Errors
/// Anything that isn't PTX, with its line.
pub fn parse(text: &str) -> Result<Module> {
    let lexemes = lex(text)?;
    let mut parser = Parser { lexemes, at: 0 };
    parser.module()
}

struct Parser {
    lexemes: Vec<Lexeme>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.lexemes.get(self.at).map(|lexeme| &lexeme.token)
    }

    fn line(&self) -> u32 {
        let last = self.lexemes.len().saturating_sub(1);
        self.lexemes.get(self.at.min(last)).map_or(0, |lexeme| lexeme.line)
    }

    fn fail<T>(&self, expected: &str) -> Result<T> {
        let found = self.peek().map_or("the end of the text".to_owned(), |token| format!("{token:?}"));
        Err(ParseError::new(self.line(), format!("expected {expected}, found {found}")))
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.lexemes.get(self.at).map(|lexeme| lexeme.token.clone());
        self.at += 1;
        token
    }

    fn is_mark(&self, mark: char) -> bool {
        self.peek() == Some(&Token::Mark(mark))
    }

    /// Steps over `mark` if it is next.
    fn take(&mut self, mark: char) -> bool {
        let found = self.is_mark(mark);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char) -> Result<()> {
        if self.take(mark) { Ok(()) } else { self.fail(&format!("`{mark}`")) }
    }

    /// Steps over the directive `.name` if it is next.
    fn take_dot(&mut self, name: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Dot(word)) if word == name);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, expected: &str) -> Result<String> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => self.fail(expected),
        }
    }

    fn integer(&mut self, expected: &str) -> Result<u64> {
        match self.peek() {
            Some(&Token::Integer(value)) => {
                self.at += 1;
                Ok(value)
            }
            _ => self.fail(expected),
        }
    }

    fn module(&mut self) -> Result<Module> {
        let mut module = Module::default();
        while let Some(token) = self.peek().cloned() {
            let Token::Dot(word) = token else {
                return self.fail("a directive");
            };
            match word.as_str() {
                "version" => {
                    self.at += 1;
                    let Some(Token::Double(bits)) = self.next() else {
                        return self.fail("a version such as 8.0");
                    };
                    let tenths = (f64::from_bits(bits) * 10.0).round() as u32;
                    module.version = (tenths / 10, tenths % 10);
                }
                "target" => {
                    self.at += 1;
                    module.target = self.word("a target such as sm_80")?;
                    while self.take(',') {
                        self.word("a target option")?;
                    }
                }
                "address_size" => {
                    self.at += 1;
                    if self.integer("64")? != 64 {
                        return self.fail("64-bit addresses");
                    }
                }
                "section" => self.section()?,
                "pragma" => self.pragma()?,
                "alias" => return self.fail("anything but .alias, which isn't supported"),
                _ => self.global(&mut module)?,
            }
        }
        Ok(module)
    }

    /// `.section .debug_x { … }`, skipped.
    fn section(&mut self) -> Result<()> {
        while !self.is_mark('{') {
            if self.next().is_none() {
                return self.fail("a section's `{`");
            }
        }
        let mut depth = 0;
        loop {
            match self.next() {
                Some(Token::Mark('{')) => depth += 1,
                Some(Token::Mark('}')) => depth -= 1,
                None => return self.fail("a section's `}`"),
                Some(_) => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// `.pragma "…";`: a hint to the optimiser, without meaning for a result.
    fn pragma(&mut self) -> Result<()> {
        self.at += 1;
        while !self.take(';') {
            if self.next().is_none() {
                return self.fail("`;` after .pragma");
            }
        }
        Ok(())
    }

    /// A function or a variable, after its linkage.
    fn global(&mut self, module: &mut Module) -> Result<()> {
        while ["visible", "extern", "weak", "common"].iter().any(|linkage| self.take_dot(linkage)) {}
        if self.take_dot("entry") {
            module.functions.push(self.function(true)?);
        } else if self.take_dot("func") {
            module.functions.push(self.function(false)?);
        } else {
            let declared = self.variable(true)?;
            module.variables.extend(declared);
        }
        Ok(())
    }

    fn function(&mut self, kernel: bool) -> Result<Function> {
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

    fn body(&mut self) -> Result<Vec<Statement>> {
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

    /// `.space .align n .vN .type name<n>`, `name[n][m] = {…}`, several by commas; `;` at the end when `closed`.
    fn variable(&mut self, closed: bool) -> Result<Vec<Variable>> {
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

    fn operand(&mut self) -> Result<Operand> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
.version 8.3
.target sm_80, debug
.address_size 64
.global .align 4 .b8 table[2][3] = {1, 2, 3, 4, 5, 6};
.extern .shared .align 16 .b8 smem[];
.func (.param .b32 out) twice(.param .b32 in)
{
	.reg .b32 %r<3>;
	ld.param.b32 %r1, [in];
	add.s32 %r2, %r1, %r1;
	st.param.b32 [out+0], %r2;
	ret;
}
.visible .entry k(.param .u64 .ptr .global .align 16 k_param_0, .param .align 8 .b8 k_param_1[24])
.reqntid 128, 1, 1
.minnctapersm 2
{
	.reg .pred %p<2>;
	.reg .b64 %rd<3>;
$L__BB0_1:
	.pragma "nounroll";
	@!%p1 bra $L__BB0_1;
	ld.global.nc.v2.f32 {%f1, _}, [%rd1+-8];
	{ .reg .b32 t; mov.u32 t, %tid.x; }
	shfl.sync.bfly.b32 %r16|%p1, %r14, 8, 31, -1;
	call.uni (r), twice, (a, b);
	ret;
}
.section .debug_abbrev { .b8 1 { } }
"#;

    #[test]
    fn a_module_is_read_with_its_lines() {
        let module = parse(TEXT).unwrap();
        assert_eq!(module.version, (8, 3));
        assert_eq!(module.target, "sm_80");
        assert_eq!(module.variables[0].count, 6);
        assert_eq!(module.variables[1].count, 0);
        let kernel = &module.functions[1];
        assert_eq!(kernel.required_threads, Some([128, 1, 1]));
        assert_eq!(kernel.parameters[1].bytes(), 24);
        let body = kernel.body.as_ref().unwrap();
        let Statement::Instruction(branch) = &body[3] else { panic!("{:?}", body[3]) };
        assert_eq!(branch.guard, Some(("%p1".into(), true)));
        assert_eq!(branch.line, 23);
        let Statement::Instruction(load) = &body[4] else { panic!("{:?}", body[4]) };
        assert_eq!(load.name(), "ld.global.nc.v2.f32");
        assert_eq!(load.operands[1], Operand::Address(Some("%rd1".into()), -8));
        assert!(matches!(&body[5], Statement::Block(inner) if inner.len() == 2));
    }

    #[test]
    fn an_error_names_its_line() {
        let error = parse(".version 8.0\n.target sm_80\n.entry k() {\n add.s32 %r1 %r2;\n}").unwrap_err();
        assert_eq!(error.line, 4);
        assert!(error.to_string().contains("`,` or `;`"), "{error}");
    }
}
