//! The syntax of expressions. In: an expression. Out: what it means, with the Perl classes and word
//! boundaries of ASCII, as RE2 has them: those of Unicode make an automaton a hundred times as large
//! (`\w{18}` would have 5,700 states instead of 21), and no automaton knows Unicode's word boundaries.
//! It refuses what would take long to read.

use regex_syntax::{
    ast::{
        Assertion, AssertionKind, Ast, ClassAscii, ClassAsciiKind, ClassBracketed, ClassPerl,
        ClassPerlKind, ClassSet, ClassSetItem, Flag, Flags, FlagsItem, FlagsItemKind, Group,
        GroupKind, Literal, parse::Parser,
    },
    hir::{Hir, translate::TranslatorBuilder},
};

use super::PatternError;

/// What classes beyond ASCII may cost together. One unit is some 15 µs; a range over all of Unicode
/// that is to be read without case takes 4 ms.
const WIDE_LIMIT: u32 = 128;

/// Reads an expression. Nothing of it leaves a group that is put around it.
pub(super) fn parse(source: &str) -> Result<Hir, PatternError> {
    let syntax = |error: regex_syntax::Error| PatternError::Syntax(error.to_string());
    let mut ast = Parser::new().parse(source).map_err(|error| syntax(error.into()))?;
    let mut reader = Reader { folds: false, wide: 0 };
    reader.look_for_case(&ast);
    reader.read(&mut ast);
    if reader.wide > WIDE_LIMIT {
        return Err(PatternError::Wide);
    }
    // Bytes that are no UTF-8 may be named.
    let mut translator = TranslatorBuilder::new().utf8(false).build();
    translator.translate(source, &ast).map_err(|error| syntax(error.into()))
}

/// Replaces classes, and counts what they cost.
struct Reader {
    /// Something is to be read without case.
    folds: bool,
    wide: u32,
}

impl Reader {
    fn look_for_case(&mut self, ast: &Ast) {
        match ast {
            Ast::Flags(set) => self.folds |= ignores_case(&set.flags),
            Ast::Group(group) => {
                if let GroupKind::NonCapturing(flags) = &group.kind {
                    self.folds |= ignores_case(flags);
                }
                self.look_for_case(&group.ast);
            }
            Ast::Repetition(repeated) => self.look_for_case(&repeated.ast),
            Ast::Alternation(all) => all.asts.iter().for_each(|ast| self.look_for_case(ast)),
            Ast::Concat(all) => all.asts.iter().for_each(|ast| self.look_for_case(ast)),
            _ => {}
        }
    }

    // The parser bounds how deep it nests.
    fn read(&mut self, ast: &mut Ast) {
        match ast {
            Ast::ClassPerl(perl) => {
                let kind = ClassSet::Item(ClassSetItem::Ascii(ascii(perl)));
                let class = ClassBracketed { span: perl.span, negated: false, kind };
                *ast = Ast::ClassBracketed(Box::new(class));
            }
            Ast::Assertion(assertion) if is_word_boundary(assertion) => {
                let assertion = assertion.clone();
                *ast = of_ascii(*assertion);
            }
            Ast::ClassUnicode(_) => self.unicode(),
            Ast::ClassBracketed(class) => self.set(&mut class.kind),
            Ast::Group(group) => self.read(&mut group.ast),
            Ast::Repetition(repeated) => self.read(&mut repeated.ast),
            Ast::Alternation(all) => all.asts.iter_mut().for_each(|ast| self.read(ast)),
            Ast::Concat(all) => all.asts.iter_mut().for_each(|ast| self.read(ast)),
            Ast::Empty(_) | Ast::Flags(_) | Ast::Literal(_) | Ast::Dot(_) | Ast::Assertion(_) => {}
        }
    }

    fn set(&mut self, set: &mut ClassSet) {
        match set {
            ClassSet::Item(item) => self.item(item),
            ClassSet::BinaryOp(op) => {
                self.set(&mut op.lhs);
                self.set(&mut op.rhs);
            }
        }
    }

    fn item(&mut self, item: &mut ClassSetItem) {
        match item {
            ClassSetItem::Perl(perl) => *item = ClassSetItem::Ascii(ascii(perl)),
            ClassSetItem::Unicode(_) => self.unicode(),
            ClassSetItem::Range(range) => self.range(&range.start, &range.end),
            ClassSetItem::Bracketed(class) => self.set(&mut class.kind),
            ClassSetItem::Union(all) => all.items.iter_mut().for_each(|item| self.item(item)),
            ClassSetItem::Empty(_) | ClassSetItem::Literal(_) | ClassSetItem::Ascii(_) => {}
        }
    }

    fn unicode(&mut self) {
        self.wide += if self.folds { 32 } else { 1 };
    }

    fn range(&mut self, start: &Literal, end: &Literal) {
        if self.folds && !end.c.is_ascii() {
            self.wide += 1 + (u32::from(end.c) - u32::from(start.c).min(u32::from(end.c))) / 0x4000;
        }
    }
}

fn ignores_case(flags: &Flags) -> bool {
    flags.flag_state(Flag::CaseInsensitive) == Some(true)
}

fn ascii(perl: &ClassPerl) -> ClassAscii {
    let kind = match perl.kind {
        ClassPerlKind::Digit => ClassAsciiKind::Digit,
        ClassPerlKind::Space => ClassAsciiKind::Space,
        ClassPerlKind::Word => ClassAsciiKind::Word,
    };
    ClassAscii { span: perl.span, kind, negated: perl.negated }
}

fn is_word_boundary(assertion: &Assertion) -> bool {
    !matches!(
        assertion.kind,
        AssertionKind::StartLine
            | AssertionKind::EndLine
            | AssertionKind::StartText
            | AssertionKind::EndText
    )
}

/// `(?-u:\b)`.
fn of_ascii(assertion: Assertion) -> Ast {
    let span = assertion.span;
    let item = |kind| FlagsItem { span, kind };
    let items = vec![item(FlagsItemKind::Negation), item(FlagsItemKind::Flag(Flag::Unicode))];
    let kind = GroupKind::NonCapturing(Flags { span, items });
    Ast::Group(Box::new(Group { span, kind, ast: Box::new(Ast::Assertion(Box::new(assertion))) }))
}
