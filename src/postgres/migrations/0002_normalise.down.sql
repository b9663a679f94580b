DROP TABLE verdicts, held, hydrations, connections;
