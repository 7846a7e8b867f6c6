package sandbox

import "github.com/yuin/gopher-lua/ast"

// concat is the name of the function that stands for the operator "..". It
// cannot be written in a script.
const concat = "(concat)"

// rewriteBlock puts a function that counts in the place of every "..": Lua
// itself does not bound the text that a script makes.
func rewriteBlock(stmts []ast.Stmt) {
	for _, s := range stmts {
		rewriteStmt(s)
	}
}

func rewriteStmt(stmt ast.Stmt) {
	switch s := stmt.(type) {
	case *ast.AssignStmt:
		rewriteAll(s.Lhs)
		rewriteAll(s.Rhs)
	case *ast.LocalAssignStmt:
		rewriteAll(s.Exprs)
	case *ast.FuncCallStmt:
		rewrite(&s.Expr)
	case *ast.DoBlockStmt:
		rewriteBlock(s.Stmts)
	case *ast.WhileStmt:
		rewrite(&s.Condition)
		rewriteBlock(s.Stmts)
	case *ast.RepeatStmt:
		rewrite(&s.Condition)
		rewriteBlock(s.Stmts)
	case *ast.IfStmt:
		rewrite(&s.Condition)
		rewriteBlock(s.Then)
		rewriteBlock(s.Else)
	case *ast.NumberForStmt:
		rewrite(&s.Init)
		rewrite(&s.Limit)
		rewrite(&s.Step)
		rewriteBlock(s.Stmts)
	case *ast.GenericForStmt:
		rewriteAll(s.Exprs)
		rewriteBlock(s.Stmts)
	case *ast.FuncDefStmt:
		rewriteBlock(s.Func.Stmts)
	case *ast.ReturnStmt:
		rewriteAll(s.Exprs)
	}
}

func rewriteAll(exprs []ast.Expr) {
	for i := range exprs {
		rewrite(&exprs[i])
	}
}

func rewrite(at *ast.Expr) {
	switch e := (*at).(type) {
	case nil:
	case *ast.AttrGetExpr:
		rewrite(&e.Object)
		rewrite(&e.Key)
	case *ast.TableExpr:
		for _, f := range e.Fields {
			rewrite(&f.Key)
			rewrite(&f.Value)
		}
	case *ast.FuncCallExpr:
		rewrite(&e.Func)
		rewrite(&e.Receiver)
		rewriteAll(e.Args)
	case *ast.LogicalOpExpr:
		rewrite(&e.Lhs)
		rewrite(&e.Rhs)
	case *ast.RelationalOpExpr:
		rewrite(&e.Lhs)
		rewrite(&e.Rhs)
	case *ast.ArithmeticOpExpr:
		rewrite(&e.Lhs)
		rewrite(&e.Rhs)
	case *ast.UnaryMinusOpExpr:
		rewrite(&e.Expr)
	case *ast.UnaryNotOpExpr:
		rewrite(&e.Expr)
	case *ast.UnaryLenOpExpr:
		rewrite(&e.Expr)
	case *ast.FunctionExpr:
		rewriteBlock(e.Stmts)
	case *ast.StringConcatOpExpr:
		rewrite(&e.Lhs)
		rewrite(&e.Rhs)
		name := &ast.IdentExpr{Value: concat}
		// A call in brackets gives one value, as the operator does.
		call := &ast.FuncCallExpr{Func: name, Args: []ast.Expr{single(e.Lhs), single(e.Rhs)}, AdjustRet: true}
		for _, n := range []ast.PositionHolder{name, call} {
			n.SetLine(e.Line())
			n.SetLastLine(e.LastLine())
		}
		*at = call
	}
}

// single makes an operand give exactly one value as an argument.
func single(e ast.Expr) ast.Expr {
	switch x := e.(type) {
	case *ast.FuncCallExpr:
		x.AdjustRet = true
	case *ast.Comma3Expr:
		x.AdjustRet = true
	}
	return e
}
