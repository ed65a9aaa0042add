//! Tokens to a [`Module`]: here the parser's place in the tokens, and what stands at the top of a module.

mod declarations;
mod statements;

use super::ParseError;
use super::ast::Module;
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
}

#[cfg(test)]
mod tests {
    use super::super::ast::{Operand, Statement};
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
