-- The table and the loads that Millrace and the peer are measured on.
drop table if exists bench;
create table bench (id bigint primary key, qty int, code text, note text, price numeric(12,2), ts timestamptz, ok boolean, doc jsonb);
create or replace procedure load_insert(first bigint, n bigint, per int) language plpgsql as $$
begin for i in first..first+n-1 loop
  insert into bench values (i, i%1000, rpad('code-'||i, 20, 'x'), rpad(md5(i::text), 60, 'n'), (i%1000000)/7.0, clock_timestamp(), i%2=0, jsonb_build_object('k', i, 's', 'v'||i%100));
  if i % per = 0 then commit; end if;
end loop; commit; end $$;
-- 50 % inserts, 40 % updates, 10 % deletes; needs the rows first-n .. first-1
create or replace procedure load_mixed(first bigint, n bigint, per int) language plpgsql as $$
declare nx bigint := first; up bigint := first - n/2; de bigint := first - n;
begin for i in 1..n loop
  if i % 10 < 5 then insert into bench values (nx, nx%1000, rpad('code-'||nx, 20, 'x'), rpad(md5(nx::text), 60, 'n'), (nx%1000000)/7.0, clock_timestamp(), nx%2=0, jsonb_build_object('k', nx, 's', 'v'||nx%100)); nx := nx+1;
  elsif i % 10 < 9 then update bench set qty = qty+1, ts = clock_timestamp() where id = up; up := up+1;
  else delete from bench where id = de; de := de+1; end if;
  if i % per = 0 then commit; end if;
end loop; commit; end $$;
-- single-row transactions at a steady rate per second
create or replace procedure load_steady(first bigint, n bigint, rate float) language plpgsql as $$
declare t0 timestamptz := clock_timestamp(); ahead float;
begin for i in 0..n-1 loop
  insert into bench values (first+i, i%1000, rpad('code-'||i, 20, 'x'), rpad(md5(i::text), 60, 'n'), (i%1000000)/7.0, clock_timestamp(), i%2=0, jsonb_build_object('k', i, 's', 'v'||i%100));
  commit;
  ahead := (i+1)/rate - extract(epoch from clock_timestamp()-t0);
  if ahead > 0 then perform pg_sleep(ahead); end if;
end loop; end $$;
create or replace procedure load_one_transaction(first bigint, n bigint) language sql as $$
  insert into bench select i, i%1000, rpad('code-'||i, 20, 'x'), rpad(md5(i::text), 60, 'n'), (i%1000000)/7.0, clock_timestamp(), i%2=0, jsonb_build_object('k', i, 's', 'v'||i%100) from generate_series(first, first+n-1) i
$$;
-- the tables t_0 .. t_<n-1> instead of those there are
create or replace procedure make_tables(n int) language plpgsql as $$
declare old name;
begin
  for old in select relname from pg_class where relname ~ '^t_\d+$' and relkind = 'r' loop execute format('drop table %I', old); commit; end loop;
  for i in 0..n-1 loop execute format('create table t_%s (like bench including all)', i); commit; end loop;
end $$;
-- statements of a hundred rows, ten to a transaction, each into the next of n tables
create or replace procedure load_tables(n int, first bigint, statements int) language plpgsql as $$
begin for k in 0..statements-1 loop
  execute format('insert into t_%s select i, i%%1000, rpad(''code-''||i, 20, ''x''), rpad(md5(i::text), 60, ''n''), (i%%1000000)/7.0, clock_timestamp(), i%%2=0, jsonb_build_object(''k'', i, ''s'', ''v''||i%%100) from generate_series(%s::bigint, %s::bigint) i', k % n, first + k * 100, first + k * 100 + 99);
  if k % 10 = 9 then commit; end if;
end loop; commit; end $$;
