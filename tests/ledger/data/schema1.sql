BEGIN TRANSACTION;
CREATE TABLE accounts (
  name TEXT PRIMARY KEY, parent TEXT,
  limit_usd INTEGER, limit_tokens INTEGER, limit_calls INTEGER,
  posted_usd INTEGER NOT NULL, posted_tokens INTEGER NOT NULL, posted_calls INTEGER NOT NULL,
  held_usd INTEGER NOT NULL, held_tokens INTEGER NOT NULL, held_calls INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "accounts" VALUES('feature/ünïcode','org/acme',NULL,NULL,NULL,800,80,1,0,0,0);
INSERT INTO "accounts" VALUES('org/acme',NULL,12000000000,200000,NULL,6900,1090,4,1040,104,3);
INSERT INTO "accounts" VALUES('user/42','org/acme',5000000000,NULL,NULL,6900,1090,4,1040,104,3);
CREATE TABLE entries (
  seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, targets TEXT NOT NULL,
  held_usd INTEGER NOT NULL, held_tokens INTEGER NOT NULL, held_calls INTEGER NOT NULL,
  posted_usd INTEGER NOT NULL, posted_tokens INTEGER NOT NULL, posted_calls INTEGER NOT NULL,
  detail TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;
INSERT INTO "entries" VALUES(1,1760000000000000000,'account','org/acme','[]',0,0,0,0,0,0,'{"limit":{"calls":1000,"tokens":100000,"usd_nano":10000000000},"parent":null}','443fca0217ea03147562867197e78cfe');
INSERT INTO "entries" VALUES(2,1760000001000000000,'account','user/42','[]',0,0,0,0,0,0,'{"limit":{"calls":null,"tokens":null,"usd_nano":50000000},"parent":"org/acme"}','fafa288ed410909ea4acd3e94b163ca9');
INSERT INTO "entries" VALUES(3,1760000002000000000,'account','feature/ünïcode','[]',0,0,0,0,0,0,'{"limit":{"calls":null,"tokens":null,"usd_nano":null},"parent":"org/acme"}','495b45b7063071e504d36a030b4f6f5f');
INSERT INTO "entries" VALUES(4,1760000003000000000,'limit','user/42','[]',0,0,0,0,0,0,'{"limit":{"calls":null,"tokens":null,"usd_nano":5000000000}}','3e349e3e29038c06b920ba0374eeeaf9');
INSERT INTO "entries" VALUES(5,1760000004000000000,'limit','org/acme','[]',0,0,0,0,0,0,'{"limit":{"calls":null,"tokens":200000,"usd_nano":12000000000}}','c9e561b6ceb07c7a805e64a95d3f5712');
INSERT INTO "entries" VALUES(6,1760000006000000000,'reserve','run-1/answer','["user/42","org/acme"]',5000,900,3,0,0,0,'{"estimated":{"usd_nano":7},"kind":"step","skill":"answer"}','91edf7328f6cbaf58f1ee09f4771c89a');
INSERT INTO "entries" VALUES(7,1760000008000000000,'reserve','run-1/answer/1','["hold:run-1/answer"]',2000,400,1,0,0,0,'{}','d96fe1ed4425bf9d9acb358ac6490180');
INSERT INTO "entries" VALUES(8,1760000009000000000,'settle','run-1/answer/1','["hold:run-1/answer"]',-2000,-400,-1,1500,300,1,'{"score":NaN,"seconds":0.25,"text":"“quoted”|pipe"}','242c8aa20db520faace2bc74a4e21a5c');
INSERT INTO "entries" VALUES(9,1760000012000000000,'reserve','run-1/answer/2','["hold:run-1/answer"]',3000,400,1,0,0,0,'{"kind":"call"}','0e31e4ed161da5522b3a2f578e764dfd');
INSERT INTO "entries" VALUES(10,1760000013000000000,'settle','run-1/answer/2','["hold:run-1/answer"]',-3000,-400,-1,4500,700,1,'{}','9bce9c6e3c8b7fec790aedf21937f536');
INSERT INTO "entries" VALUES(11,1760000015000000000,'extend','run-1/answer','["user/42","org/acme"]',1000,100,0,0,0,0,'{}','0083a489e6b90116b495495e6caf651d');
INSERT INTO "entries" VALUES(12,1760000016000000000,'settle','run-1/answer','["user/42","org/acme"]',-6000,-1000,-3,6000,1000,2,'{"verdict":"accepted"}','b4fcdc9a05ded8cc284d2c53b1fca9a1');
INSERT INTO "entries" VALUES(13,1760000019000000000,'reserve','run-2/lost','["user/42","org/acme","feature/ünïcode"]',800,80,1,0,0,0,'{}','a8a5e13897ae007584f1fbc5d8bf0122');
INSERT INTO "entries" VALUES(14,1760000020000000000,'settle','run-2/lost','["user/42","org/acme","feature/ünïcode"]',-800,-80,-1,800,80,1,'{"error":"timeout","presumed":true}','bfbebd6b31e83154566329a65a88ab11');
INSERT INTO "entries" VALUES(15,1760000023000000000,'reserve','run-2/guessed','["user/42","org/acme"]',900,90,2,0,0,0,'{}','4f90cf6058b0116bc27665dc2d47de0c');
INSERT INTO "entries" VALUES(16,1760000025000000000,'reserve','run-2/guessed/1','["hold:run-2/guessed"]',600,60,1,0,0,0,'{}','4bccdab0fb4d735174cb712c666c7526');
INSERT INTO "entries" VALUES(17,1760000026000000000,'lapse','run-2/guessed/1','["hold:run-2/guessed"]',-600,-60,-1,600,60,1,'{"presumed":true,"reason":"abandoned; outcome unknown"}','9954515c603a2fdc1a6b428b5b165573');
INSERT INTO "entries" VALUES(18,1760000028000000000,'settle','run-2/guessed','["user/42","org/acme"]',-900,-90,-2,600,60,1,'{}','11cbaf1cce34db7cef0977b0b6a5369e');
INSERT INTO "entries" VALUES(19,1760000030000000000,'correct','run-2/guessed/1','["hold:run-2/guessed"]',0,0,0,-500,-50,0,'{"late":true}','adcb5c8f51a2875c86bfd5bbedca40b9');
INSERT INTO "entries" VALUES(20,1760000031000000000,'correct','run-2/guessed','["user/42","org/acme"]',0,0,0,-500,-50,0,'{"because":"run-2/guessed/1"}','d4abb3da5c25466b074dc71acf1857d7');
INSERT INTO "entries" VALUES(21,1760000033000000000,'reserve','run-3/void','["user/42","org/acme"]',10,1,1,0,0,0,'{}','fdda2ec30e60356122df2f6c85249ad1');
INSERT INTO "entries" VALUES(22,1760000034000000000,'void','run-3/void','["user/42","org/acme"]',-10,-1,-1,0,0,0,'{"reason":"cached"}','630be3302141f16ddbd68b5a416e36fc');
INSERT INTO "entries" VALUES(23,1760000037000000000,'reserve','run-3/grown','["user/42","org/acme"]',10,1,1,0,0,0,'{}','b41cfc6b06fe472434820a66b4778539');
INSERT INTO "entries" VALUES(24,1760000038000000000,'extend','run-3/grown','["user/42","org/acme"]',30,3,0,0,0,0,'{}','7cb222f3d0723cfe9f80a97eead8d90b');
INSERT INTO "entries" VALUES(25,1760000040000000000,'reserve','run-4/open','["user/42","org/acme"]',1000,100,2,0,0,0,'{}','4654ea327dafb6c4a626ddabedd8abaa');
INSERT INTO "entries" VALUES(26,1760000042000000000,'reserve','run-4/open/1','["hold:run-4/open"]',300,30,1,0,0,0,'{}','809c8a28967d4b129cff251e3de0db1c');
INSERT INTO "entries" VALUES(27,1760000044000000000,'reserve','run-4/open/2','["hold:run-4/open"]',300,30,1,0,0,0,'{}','84061b86993f04be457e5153c79c4c6d');
CREATE TABLE holds (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, parent TEXT, accounts TEXT NOT NULL,
  usd INTEGER NOT NULL, tokens INTEGER NOT NULL, calls INTEGER NOT NULL,
  state TEXT NOT NULL, sent INTEGER NOT NULL, owner TEXT NOT NULL, lease_until_ns INTEGER NOT NULL,
  tag TEXT NOT NULL, meta TEXT NOT NULL, created_ns INTEGER NOT NULL,
  reserved_usd INTEGER NOT NULL, reserved_tokens INTEGER NOT NULL, reserved_calls INTEGER NOT NULL,
  spent_usd INTEGER NOT NULL, spent_tokens INTEGER NOT NULL, spent_calls INTEGER NOT NULL,
  settled_usd INTEGER, settled_tokens INTEGER, settled_calls INTEGER,
  presumed INTEGER NOT NULL, closed_ns INTEGER, detail TEXT NOT NULL
) STRICT;
INSERT INTO "holds" VALUES(1,'run-1/answer',NULL,'["user/42","org/acme"]',6000,1000,3,'settled',0,'elsewhere:42:0a1b2c3d',1760000065000000000,'step|answer','{"estimated":{"usd_nano":7},"kind":"step","skill":"answer"}',1760000005000000000,0,0,0,6000,1000,2,6000,1000,2,0,1760000017000000000,'{"verdict":"accepted"}');
INSERT INTO "holds" VALUES(2,'run-1/answer/1','run-1/answer','[]',2000,400,1,'settled',1,'elsewhere:42:0a1b2c3d',1760000067000000000,'call|draft','{}',1760000007000000000,0,0,0,0,0,0,1500,300,1,0,1760000010000000000,'{"score":NaN,"seconds":0.25,"text":"“quoted”|pipe"}');
INSERT INTO "holds" VALUES(3,'run-1/answer/2','run-1/answer','[]',3000,400,1,'settled',1,'elsewhere:42:0a1b2c3d',1760000071000000000,'','{"kind":"call"}',1760000011000000000,0,0,0,0,0,0,4500,700,1,0,1760000014000000000,'{}');
INSERT INTO "holds" VALUES(4,'run-2/lost',NULL,'["user/42","org/acme","feature/ünïcode"]',800,80,1,'settled',1,'elsewhere:42:0a1b2c3d',1760000078000000000,'call|x','{}',1760000018000000000,0,0,0,0,0,0,800,80,1,1,1760000021000000000,'{"error":"timeout","presumed":true}');
INSERT INTO "holds" VALUES(5,'run-2/guessed',NULL,'["user/42","org/acme"]',900,90,2,'settled',0,'elsewhere:42:0a1b2c3d',1760000082000000000,'','{}',1760000022000000000,0,0,0,100,10,1,100,10,1,0,1760000029000000000,'{}');
INSERT INTO "holds" VALUES(6,'run-2/guessed/1','run-2/guessed','[]',600,60,1,'settled',1,'elsewhere:42:0a1b2c3d',1760000084000000000,'','{}',1760000024000000000,0,0,0,0,0,0,100,10,1,0,1760000027000000000,'{"late":true}');
INSERT INTO "holds" VALUES(7,'run-3/void',NULL,'["user/42","org/acme"]',10,1,1,'voided',0,'elsewhere:42:0a1b2c3d',1760000092000000000,'','{}',1760000032000000000,0,0,0,0,0,0,0,0,0,0,1760000035000000000,'{"reason":"cached"}');
INSERT INTO "holds" VALUES(8,'run-3/grown',NULL,'["user/42","org/acme"]',40,4,1,'open',0,'elsewhere:42:0a1b2c3d',1760000096000000000,'','{}',1760000036000000000,0,0,0,0,0,0,NULL,NULL,NULL,0,NULL,'{}');
INSERT INTO "holds" VALUES(9,'run-4/open',NULL,'["user/42","org/acme"]',1000,100,2,'open',0,'elsewhere:42:0a1b2c3d',1760000099000000000,'step|answer','{}',1760000039000000000,600,60,2,0,0,0,NULL,NULL,NULL,0,NULL,'{}');
INSERT INTO "holds" VALUES(10,'run-4/open/1','run-4/open','[]',300,30,1,'open',1,'elsewhere:42:0a1b2c3d',1760000101000000000,'','{}',1760000041000000000,0,0,0,0,0,0,NULL,NULL,NULL,0,NULL,'{}');
INSERT INTO "holds" VALUES(11,'run-4/open/2','run-4/open','[]',300,30,1,'open',0,'elsewhere:42:0a1b2c3d',1760000103000000000,'','{}',1760000043000000000,0,0,0,0,0,0,NULL,NULL,NULL,0,NULL,'{}');
CREATE INDEX holds_parent ON holds (parent) WHERE parent IS NOT NULL;
CREATE INDEX holds_open ON holds (owner) WHERE state = 'open';
CREATE INDEX holds_tag ON holds (tag, closed_ns) WHERE state = 'settled';
CREATE TRIGGER entries_are_immutable BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END;
CREATE TRIGGER entries_stay BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'entries are immutable'); END;
COMMIT;
PRAGMA application_id = 1095189076;
PRAGMA user_version = 1;
