"""Operations over several models, as plain functions on a Context; every change leaves an audit row."""
