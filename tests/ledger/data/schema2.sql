BEGIN TRANSACTION;
CREATE TABLE accounts (
      name TEXT PRIMARY KEY, parent TEXT,
      limit_usd INTEGER, limit_tokens INTEGER, limit_calls INTEGER, windows TEXT NOT NULL,
      posted_usd INTEGER NOT NULL, posted_tokens INTEGER NOT NULL, posted_calls INTEGER NOT NULL,
      held_usd INTEGER NOT NULL, held_tokens INTEGER NOT NULL, held_calls INTEGER NOT NULL,
      frozen TEXT
    ) STRICT, WITHOUT ROWID;
INSERT INTO "accounts" VALUES('org/acme',NULL,12000000000,NULL,NULL,'{"90s":[null,9000,null],"day@UTC":[null,null,1000]}',3300,380,2,1000,100,2,NULL);
INSERT INTO "accounts" VALUES('user/42','org/acme',5000000000,NULL,NULL,'{}',3300,380,2,1000,100,2,NULL);
CREATE TABLE entries (
      seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, targets TEXT NOT NULL,
      held_usd INTEGER NOT NULL, held_tokens INTEGER NOT NULL, held_calls INTEGER NOT NULL,
      posted_usd INTEGER NOT NULL, posted_tokens INTEGER NOT NULL, posted_calls INTEGER NOT NULL,
      detail TEXT NOT NULL, hash BLOB NOT NULL
    ) STRICT;
INSERT INTO "entries" VALUES(1,1790000000000000000,'account','org/acme','[]',0,0,0,0,0,0,'{"parent":null}',X'DD4756E1FC24B0A43774C8EEBDE9CD0D');
INSERT INTO "entries" VALUES(2,1790000001000000000,'limit','org/acme','[]',0,0,0,0,0,0,'{"limit":[10000000000,null,null],"window":"total"}',X'B47D0577B68A51D29DEFA406F5033C6D');
INSERT INTO "entries" VALUES(3,1790000002000000000,'limit','org/acme','[]',0,0,0,0,0,0,'{"limit":[null,null,1000],"window":"day@UTC"}',X'499C9BB1D55423CBCB179730A7F1A5CB');
INSERT INTO "entries" VALUES(4,1790000003000000000,'limit','org/acme','[]',0,0,0,0,0,0,'{"limit":[null,9000,null],"window":"90s"}',X'00A92BB28CC45B0BCF5D47DB14FF406E');
INSERT INTO "entries" VALUES(5,1790000004000000000,'account','user/42','[]',0,0,0,0,0,0,'{"parent":"org/acme"}',X'B166ABB1CC8D45FE555B702F83A3FC81');
INSERT INTO "entries" VALUES(6,1790000005000000000,'limit','user/42','[]',0,0,0,0,0,0,'{"limit":[5000000000,null,null],"window":"total"}',X'69519AADED547977BF983DD40F9E8D4D');
INSERT INTO "entries" VALUES(7,1790000006000000000,'topup','org/acme','[]',0,0,0,0,0,0,'{"by":[2000000000,null,null],"id":"t","limit":[12000000000,null,null],"window":"total"}',X'7C4DEA43764F32FE80FBCE698EFD8FA9');
INSERT INTO "entries" VALUES(8,1790000007000000000,'reserve','step','["user/42","org/acme"]',5000,900,3,0,0,0,'{"meta":{"skill":"x"},"tag":"step"}',X'FEB973E1A857B9B69AE989925AFAA78F');
INSERT INTO "entries" VALUES(9,1790000008000000000,'reserve','step/1','["hold:step"]',2000,400,1,0,0,0,'{"tag":"call"}',X'851AB9B30F72CAA156E6F8E45BF6E33F');
INSERT INTO "entries" VALUES(10,1790000009000000000,'sent','step/1','[]',0,0,0,0,0,0,'{}',X'CDACBAA2C1BAFEA9EF3045499F73A045');
INSERT INTO "entries" VALUES(11,1790000010000000000,'settle','step/1','["hold:step"]',-2000,-400,-1,2500,300,1,'{"seconds":0.25}',X'EAD28BA8C7C738880A6A1E370569318F');
INSERT INTO "entries" VALUES(12,1790000011000000000,'settle','step','["user/42","org/acme"]',-5000,-900,-3,2500,300,1,'{}',X'16E0AF8C0EAFD3069018ADE8E514D9C6');
INSERT INTO "entries" VALUES(13,1790000012000000000,'reserve','lost','["user/42","org/acme"]',800,80,1,0,0,0,'{}',X'EAFF2D01D360439FFCA2DD2D7BEDAD5F');
INSERT INTO "entries" VALUES(14,1790000013000000000,'sent','lost','[]',0,0,0,0,0,0,'{}',X'C9D68EA189DB8B9275B23D5D888E22D7');
INSERT INTO "entries" VALUES(15,1790000014000000000,'settle','lost','["user/42","org/acme"]',-800,-80,-1,800,80,1,'{"presumed":true}',X'45232119EB956571886BA782200E4D83');
INSERT INTO "entries" VALUES(16,1790000015000000000,'reserve','void','["user/42","org/acme"]',10,0,0,0,0,0,'{}',X'6F6E18778B62A57237D7E4828D373B6E');
INSERT INTO "entries" VALUES(17,1790000016000000000,'void','void','["user/42","org/acme"]',-10,0,0,0,0,0,'{"reason":"nothing was sent"}',X'C22F32C53CA4F509B64C24AED19D3EBD');
INSERT INTO "entries" VALUES(18,1790000017000000000,'reserve','open','["user/42","org/acme"]',1000,100,2,0,0,0,'{"tag":"step"}',X'20EB790CC2305F6748E45B52A7B700FC');
INSERT INTO "entries" VALUES(19,1790000018000000000,'reserve','open/1','["hold:open"]',300,30,1,0,0,0,'{}',X'1CDC78D298E49BFD5EB44677B1213ACD');
INSERT INTO "entries" VALUES(20,1790000019000000000,'sent','open/1','[]',0,0,0,0,0,0,'{}',X'0C20F936520041F061EB2F52E9CF945A');
CREATE TABLE holds (
      number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, parent TEXT,
      usd INTEGER NOT NULL, tokens INTEGER NOT NULL, calls INTEGER NOT NULL,
      state TEXT NOT NULL, sent INTEGER NOT NULL, owner TEXT NOT NULL, tag TEXT,
      reserved_usd INTEGER NOT NULL DEFAULT 0, reserved_tokens INTEGER NOT NULL DEFAULT 0,
      reserved_calls INTEGER NOT NULL DEFAULT 0,
      spent_usd INTEGER NOT NULL DEFAULT 0, spent_tokens INTEGER NOT NULL DEFAULT 0,
      spent_calls INTEGER NOT NULL DEFAULT 0, children INTEGER NOT NULL DEFAULT 0,
      settled_usd INTEGER, settled_tokens INTEGER, settled_calls INTEGER,
      presumed INTEGER NOT NULL DEFAULT FALSE, closed INTEGER
    ) STRICT;
INSERT INTO "holds" VALUES(8,'step',NULL,5000,900,3,'settled',0,'elsewhere:42:0a1b2c3d','step',0,0,0,2500,300,1,0,2500,300,1,0,12);
INSERT INTO "holds" VALUES(9,'step/1','step',2000,400,1,'settled',1,'elsewhere:42:0a1b2c3d','call',0,0,0,0,0,0,0,2500,300,1,0,11);
INSERT INTO "holds" VALUES(13,'lost',NULL,800,80,1,'settled',1,'elsewhere:42:0a1b2c3d',NULL,0,0,0,0,0,0,0,800,80,1,1,15);
INSERT INTO "holds" VALUES(16,'void',NULL,10,0,0,'voided',0,'elsewhere:42:0a1b2c3d',NULL,0,0,0,0,0,0,0,0,0,0,0,17);
INSERT INTO "holds" VALUES(18,'open',NULL,1000,100,2,'open',0,'elsewhere:42:0a1b2c3d','step',300,30,1,0,0,0,1,NULL,NULL,NULL,0,NULL);
INSERT INTO "holds" VALUES(19,'open/1','open',300,30,1,'open',1,'elsewhere:42:0a1b2c3d',NULL,0,0,0,0,0,0,0,NULL,NULL,NULL,0,NULL);
CREATE TABLE leases (owner TEXT PRIMARY KEY, until_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO "leases" VALUES('elsewhere:42:0a1b2c3d',1790000067000000000);
CREATE TABLE marks (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO "marks" VALUES('topup/t',7);
CREATE TABLE periods (
      account TEXT NOT NULL, time_window TEXT NOT NULL, start_ns INTEGER NOT NULL,
      held_usd INTEGER NOT NULL, held_tokens INTEGER NOT NULL, held_calls INTEGER NOT NULL,
      posted_usd INTEGER NOT NULL, posted_tokens INTEGER NOT NULL, posted_calls INTEGER NOT NULL,
      PRIMARY KEY (account, time_window, start_ns)
    ) STRICT, WITHOUT ROWID;
INSERT INTO "periods" VALUES('org/acme','90s',1790000006940000000,0,0,0,2500,300,1);
INSERT INTO "periods" VALUES('org/acme','90s',1790000011980000000,0,0,0,800,80,1);
INSERT INTO "periods" VALUES('org/acme','90s',1790000014950000000,0,0,0,0,0,0);
INSERT INTO "periods" VALUES('org/acme','90s',1790000016930000000,1000,100,2,0,0,0);
INSERT INTO "periods" VALUES('org/acme','day@UTC',1789948800000000000,1000,100,2,3300,380,2);
CREATE INDEX holds_parent ON holds (parent) WHERE parent IS NOT NULL;
CREATE INDEX holds_open ON holds (number) WHERE state = 'open';
CREATE INDEX holds_tag ON holds (tag, closed) WHERE tag IS NOT NULL AND state = 'settled';
CREATE TRIGGER entries_are_immutable BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END;
CREATE TRIGGER entries_stay BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END;
COMMIT;
PRAGMA application_id = 1095189076;
PRAGMA user_version = 2;
