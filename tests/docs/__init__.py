"""The documentation: reference pages made from the code, a build without a dead link."""
