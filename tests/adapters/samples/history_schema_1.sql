BEGIN TRANSACTION;
CREATE TABLE events (
	session_id TEXT NOT NULL, 
	seq INTEGER NOT NULL, 
	run_id TEXT NOT NULL, 
	step INTEGER NOT NULL, 
	type TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	payload TEXT NOT NULL, 
	PRIMARY KEY (session_id, seq), 
	FOREIGN KEY(session_id) REFERENCES sessions (session_id)
)
 WITHOUT ROWID

;
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',1,'run_1m7yctk5gqfcj1dse',0,'RunStarted',1.79524267537753915791e+09,'{"seq":1,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":0,"at":1795242675.3775392,"model":"scripted","mode":"auto","max_steps":40,"instructions":"","tools":["save"],"is_attended":false,"previous":null,"root_run_id":"run_1m7yctk5gqfcj1dse","parent_run_id":null,"depth":0,"cell_id":null,"agent":"","notices":[],"budget":null,"version":1,"type":"RunStarted"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',2,'run_1m7yctk5gqfcj1dse',0,'MessageAdded',1.79524267537753915791e+09,'{"seq":2,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":0,"at":1795242675.3775392,"message":{"role":"user","parts":[{"text":"Save the first\nline","type":"text"}],"is_partial":false},"by":"person","input_id":null,"type":"MessageAdded"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',3,'run_1m7yctk5gqfcj1dse',1,'StepStarted',1.79524267537753915791e+09,'{"seq":3,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":1,"at":1795242675.3775392,"model":"scripted","type":"StepStarted"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',4,'run_1m7yctk5gqfcj1dse',1,'MessageAdded',1.7952426754002609253e+09,'{"seq":4,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":1,"at":1795242675.400261,"message":{"role":"assistant","parts":[{"call_id":"run_1m7yctk5gqfcj1dse-1-1","name":"save","arguments_text":"{\"text\": \"first\"}","provider_id":"scripted_1_1","type":"tool_call"}],"is_partial":false},"by":"person","input_id":null,"type":"MessageAdded"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',5,'run_1m7yctk5gqfcj1dse',1,'StepFinished',1.7952426754002609253e+09,'{"seq":5,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":1,"at":1795242675.400261,"finish_reason":"tool_calls","usage":{"input_tokens":4,"output_tokens":3,"cache_read_tokens":null,"cache_write_tokens":null,"reasoning_tokens":null,"is_estimated":false},"cost_usd":null,"cost_basis":"none","answered_by":"scripted","duration_s":0.02272176742553711,"first_token_s":0.00012823799988836981,"reasoning_s":null,"longest_gap_s":0.00015376800001831725,"type":"StepFinished"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',6,'run_1m7yctk5gqfcj1dse',1,'CallProposed',1.79524267540170884131e+09,'{"seq":6,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":1,"at":1795242675.4017088,"call_id":"run_1m7yctk5gqfcj1dse-1-1","name":"save","arguments":{"text":"first"},"digest":"e891d4dd2b0f65179aa3494a34104129bd63d869ce69f00eb504b8c3d04da4e0","effect":"write","problem":null,"is_replaced":false,"is_trusted":false,"type":"CallProposed"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',7,'run_1m7yctk5gqfcj1dse',1,'CallJudged',1.79524267540170884131e+09,'{"seq":7,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":1,"at":1795242675.4017088,"call_id":"run_1m7yctk5gqfcj1dse-1-1","verdict":"allow","by":"mode auto","reason":"","type":"CallJudged"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',8,'run_1m7yctk5gqfcj1dse',1,'CallStarted',1.79524267540170884131e+09,'{"seq":8,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":1,"at":1795242675.4017088,"call_id":"run_1m7yctk5gqfcj1dse-1-1","digest":"e891d4dd2b0f65179aa3494a34104129bd63d869ce69f00eb504b8c3d04da4e0","effect":"write","type":"CallStarted"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',9,'run_1m7yctk5gqfcj1dse',1,'CallFinished',1.79524267572625923156e+09,'{"seq":9,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":1,"at":1795242675.7262592,"call_id":"run_1m7yctk5gqfcj1dse-1-1","status":"ok","content":"saved","details":null,"duration_s":0.3245503902435303,"files":[],"display":[],"type":"CallFinished"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',10,'run_1m7yctk5gqfcj1dse',2,'StepStarted',1.79524267572625923156e+09,'{"seq":10,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":2,"at":1795242675.7262592,"model":"scripted","type":"StepStarted"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',11,'run_1m7yctk5gqfcj1dse',2,'MessageAdded',1.79524267572743511205e+09,'{"seq":11,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":2,"at":1795242675.727435,"message":{"role":"assistant","parts":[{"text":"Saved: é 漢字 <b>--></b>","type":"text"}],"is_partial":false},"by":"person","input_id":null,"type":"MessageAdded"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',12,'run_1m7yctk5gqfcj1dse',2,'StepFinished',1.79524267572743511205e+09,'{"seq":12,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":2,"at":1795242675.727435,"finish_reason":"stop","usage":{"input_tokens":8,"output_tokens":4,"cache_read_tokens":null,"cache_write_tokens":null,"reasoning_tokens":null,"is_estimated":false},"cost_usd":null,"cost_basis":"none","answered_by":"scripted","duration_s":0.0011758804321289062,"first_token_s":0.00010013999963121023,"reasoning_s":null,"longest_gap_s":0.00014537000060954597,"type":"StepFinished"}');
INSERT INTO "events" VALUES('ses_1m7yctk5g5fn1patk',13,'run_1m7yctk5gqfcj1dse',2,'RunEnded',1.79524267572743511205e+09,'{"seq":13,"session_id":"ses_1m7yctk5g5fn1patk","run_id":"run_1m7yctk5gqfcj1dse","step":2,"at":1795242675.727435,"status":"completed","kind":null,"message":null,"text":null,"type":"RunEnded"}');
INSERT INTO "events" VALUES('ses_1m7yctkghr6vakr73',1,'run_1m7yctkgh8szc00fm',0,'RunStarted',1.79524267572951745988e+09,'{"seq":1,"session_id":"ses_1m7yctkghr6vakr73","run_id":"run_1m7yctkgh8szc00fm","step":0,"at":1795242675.7295175,"model":"scripted","mode":"auto","max_steps":40,"instructions":"","tools":["save"],"is_attended":false,"previous":null,"root_run_id":"run_1m7yctkgh8szc00fm","parent_run_id":null,"depth":0,"cell_id":null,"agent":"","notices":[],"budget":null,"version":1,"type":"RunStarted"}');
INSERT INTO "events" VALUES('ses_1m7yctkghr6vakr73',2,'run_1m7yctkgh8szc00fm',0,'MessageAdded',1.79524267572951745988e+09,'{"seq":2,"session_id":"ses_1m7yctkghr6vakr73","run_id":"run_1m7yctkgh8szc00fm","step":0,"at":1795242675.7295175,"message":{"role":"user","parts":[{"text":"Thanks","type":"text"}],"is_partial":false},"by":"person","input_id":null,"type":"MessageAdded"}');
INSERT INTO "events" VALUES('ses_1m7yctkghr6vakr73',3,'run_1m7yctkgh8szc00fm',1,'StepStarted',1.79524267572951745988e+09,'{"seq":3,"session_id":"ses_1m7yctkghr6vakr73","run_id":"run_1m7yctkgh8szc00fm","step":1,"at":1795242675.7295175,"model":"scripted","type":"StepStarted"}');
INSERT INTO "events" VALUES('ses_1m7yctkghr6vakr73',4,'run_1m7yctkgh8szc00fm',1,'MessageAdded',1.79524267573029470447e+09,'{"seq":4,"session_id":"ses_1m7yctkghr6vakr73","run_id":"run_1m7yctkgh8szc00fm","step":1,"at":1795242675.7302947,"message":{"role":"assistant","parts":[{"text":"And good bye.","type":"text"}],"is_partial":false},"by":"person","input_id":null,"type":"MessageAdded"}');
INSERT INTO "events" VALUES('ses_1m7yctkghr6vakr73',5,'run_1m7yctkgh8szc00fm',1,'StepFinished',1.79524267573029470447e+09,'{"seq":5,"session_id":"ses_1m7yctkghr6vakr73","run_id":"run_1m7yctkgh8szc00fm","step":1,"at":1795242675.7302947,"finish_reason":"stop","usage":{"input_tokens":1,"output_tokens":3,"cache_read_tokens":null,"cache_write_tokens":null,"reasoning_tokens":null,"is_estimated":false},"cost_usd":null,"cost_basis":"none","answered_by":"scripted","duration_s":0.0007772445678710938,"first_token_s":0.00007836799886717927,"reasoning_s":null,"longest_gap_s":0.0000808750010037329,"type":"StepFinished"}');
INSERT INTO "events" VALUES('ses_1m7yctkghr6vakr73',6,'run_1m7yctkgh8szc00fm',1,'RunEnded',1.79524267573029470447e+09,'{"seq":6,"session_id":"ses_1m7yctkghr6vakr73","run_id":"run_1m7yctkgh8szc00fm","step":1,"at":1795242675.7302947,"status":"completed","kind":null,"message":null,"text":null,"type":"RunEnded"}');
INSERT INTO "events" VALUES('ses_1m7yctkgmkft2phj2',1,'run_1m7yctkgmk27jwdbm',0,'RunStarted',1.79524267573279452318e+09,'{"seq":1,"session_id":"ses_1m7yctkgmkft2phj2","run_id":"run_1m7yctkgmk27jwdbm","step":0,"at":1795242675.7327945,"model":"scripted","mode":"ask","max_steps":40,"instructions":"","tools":[],"is_attended":false,"previous":null,"root_run_id":"run_1m7yctkgmk27jwdbm","parent_run_id":null,"depth":0,"cell_id":null,"agent":"","notices":[],"budget":null,"version":1,"type":"RunStarted"}');
INSERT INTO "events" VALUES('ses_1m7yctkgmkft2phj2',2,'run_1m7yctkgmk27jwdbm',0,'MessageAdded',1.79524267573279452318e+09,'{"seq":2,"session_id":"ses_1m7yctkgmkft2phj2","run_id":"run_1m7yctkgmk27jwdbm","step":0,"at":1795242675.7327945,"message":{"role":"user","parts":[{"text":"Greet","type":"text"}],"is_partial":false},"by":"person","input_id":null,"type":"MessageAdded"}');
INSERT INTO "events" VALUES('ses_1m7yctkgmkft2phj2',3,'run_1m7yctkgmk27jwdbm',1,'StepStarted',1.79524267573279452318e+09,'{"seq":3,"session_id":"ses_1m7yctkgmkft2phj2","run_id":"run_1m7yctkgmk27jwdbm","step":1,"at":1795242675.7327945,"model":"scripted","type":"StepStarted"}');
INSERT INTO "events" VALUES('ses_1m7yctkgmkft2phj2',4,'run_1m7yctkgmk27jwdbm',1,'MessageAdded',1.79524267573351931567e+09,'{"seq":4,"session_id":"ses_1m7yctkgmkft2phj2","run_id":"run_1m7yctkgmk27jwdbm","step":1,"at":1795242675.7335193,"message":{"role":"assistant","parts":[{"text":"Hello.","type":"text"}],"is_partial":false},"by":"person","input_id":null,"type":"MessageAdded"}');
INSERT INTO "events" VALUES('ses_1m7yctkgmkft2phj2',5,'run_1m7yctkgmk27jwdbm',1,'StepFinished',1.79524267573351931567e+09,'{"seq":5,"session_id":"ses_1m7yctkgmkft2phj2","run_id":"run_1m7yctkgmk27jwdbm","step":1,"at":1795242675.7335193,"finish_reason":"stop","usage":{"input_tokens":1,"output_tokens":1,"cache_read_tokens":null,"cache_write_tokens":null,"reasoning_tokens":null,"is_estimated":false},"cost_usd":null,"cost_basis":"none","answered_by":"scripted","duration_s":0.00072479248046875,"first_token_s":0.00008750899905862752,"reasoning_s":null,"longest_gap_s":0.00008556700049666688,"type":"StepFinished"}');
INSERT INTO "events" VALUES('ses_1m7yctkgmkft2phj2',6,'run_1m7yctkgmk27jwdbm',1,'RunEnded',1.79524267573351931567e+09,'{"seq":6,"session_id":"ses_1m7yctkgmkft2phj2","run_id":"run_1m7yctkgmk27jwdbm","step":1,"at":1795242675.7335193,"status":"completed","kind":null,"message":null,"text":null,"type":"RunEnded"}');
CREATE TABLE meta (
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('schema_version','1');
CREATE TABLE sessions (
	session_id TEXT NOT NULL, 
	title TEXT NOT NULL, 
	project TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY (session_id)
);
INSERT INTO "sessions" VALUES('ses_1m7yctk5g5fn1patk','Save the first
line','/home/ada/survey',1.79524267537659478182e+09);
INSERT INTO "sessions" VALUES('ses_1m7yctkghr6vakr73','Thanks','/home/ada/survey',1.79524267572910284991e+09);
INSERT INTO "sessions" VALUES('ses_1m7yctkgmkft2phj2','Greet','/home/ada/survey',1.79524267573215794559e+09);
CREATE INDEX ix_events_run_id ON events (run_id);
COMMIT;
