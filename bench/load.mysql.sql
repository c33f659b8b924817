drop table if exists bench; drop procedure if exists load_insert; drop procedure if exists load_mixed
-- next
create table bench (id bigint primary key, qty int, code varchar(20), note varchar(60), price decimal(12,2), ts timestamp(6) null, ok boolean, doc json)
-- next
create procedure load_insert(first bigint, n bigint, per int)
begin declare i bigint default first; start transaction;
 while i < first + n do insert into bench values (i, i % 1000, rpad(concat('code-', i), 20, 'x'), rpad(sha2(i, 256), 60, 'n'), (i % 1000000) / 7.0, now(6), i % 2, json_object('k', i, 's', concat('v', i % 100)));
  if i % per = 0 then commit; start transaction; end if; set i = i + 1; end while; commit; end
-- next
-- 50 % inserts, 40 % updates, 10 % deletes; needs the rows first-n .. first-1
create procedure load_mixed(first bigint, n bigint, per int)
begin declare i bigint default 1; declare nx bigint default first; declare up bigint default first - n div 2; declare de bigint default first - n; start transaction;
 while i <= n do
  if i % 10 < 5 then insert into bench values (nx, nx % 1000, rpad(concat('code-', nx), 20, 'x'), rpad(sha2(nx, 256), 60, 'n'), (nx % 1000000) / 7.0, now(6), nx % 2, json_object('k', nx, 's', concat('v', nx % 100))); set nx = nx + 1;
  elseif i % 10 < 9 then update bench set qty = qty + 1, ts = now(6) where id = up; set up = up + 1;
  else delete from bench where id = de; set de = de + 1; end if;
  if i % per = 0 then commit; start transaction; end if; set i = i + 1; end while; commit; end
-- next
drop procedure if exists make_tables; drop procedure if exists load_tables; drop table if exists hundred
-- next
create table hundred (i int primary key)
-- next
insert into hundred with recursive n (i) as (select 0 union all select i + 1 from n where i < 99) select i from n
-- next
-- the tables t_0 .. t_<n-1> instead of those there are
create procedure make_tables(n int)
begin declare i int default 0; declare old int default 0;
 select count(*) into old from information_schema.tables where table_schema = database() and table_name like 't\_%';
 while i < old do set @s = concat('drop table if exists t_', i); prepare p from @s; execute p; set i = i + 1; end while; set i = 0;
 while i < n do set @s = concat('create table t_', i, ' like bench'); prepare p from @s; execute p; set i = i + 1; end while; end
-- next
-- statements of a hundred rows, ten to a transaction, each into the next of n tables
create procedure load_tables(n int, first bigint, statements int)
begin declare k int default 0; start transaction;
 while k < statements do
  set @s = concat('insert into t_', k % n, ' select id, id % 1000, rpad(concat(''code-'', id), 20, ''x''), rpad(sha2(id, 256), 60, ''n''), (id % 1000000) / 7.0, now(6), id % 2, json_object(''k'', id, ''s'', concat(''v'', id % 100)) from (select ', first + k * 100, ' + i as id from hundred) r');
  prepare p from @s; execute p; set k = k + 1; if k % 10 = 0 then commit; start transaction; end if; end while; commit; end
