drop table if exists bench; drop procedure if exists load_insert;
-- next
create table bench (id bigint primary key, qty int, code varchar(20), note varchar(60), price decimal(12,2), ts timestamp(6) null, ok boolean, doc json);
-- next
create procedure load_insert(first bigint, n bigint, per int)
begin declare i bigint default first; start transaction;
 while i < first + n do insert into bench values (i, i % 1000, rpad(concat('code-', i), 20, 'x'), rpad(sha2(i, 256), 60, 'n'), (i % 1000000) / 7.0, now(6), i % 2, json_object('k', i, 's', concat('v', i % 100)));
  if i % per = 0 then commit; start transaction; end if; set i = i + 1; end while; commit; end
