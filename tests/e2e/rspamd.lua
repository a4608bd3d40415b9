-- Verdicts by subject: what a test asks of a real rspamd, without its rules, DNS and Redis.
local function when(subject, name, score)
  rspamd_config:register_symbol({
    name = name,
    type = 'normal',
    score = score,
    callback = function(task) return task:get_subject() == subject end,
  })
end

when('mark', 'TEST_MARK', 7.0)
when('refuse', 'TEST_REFUSE', 20.0)
when('later', 'TEST_LATER', 4.5)

rspamd_config:register_symbol({
  name = 'TEST_SEEN',
  type = 'idempotent',
  callback = function(task)
    local from, ip = task:get_from('smtp'), task:get_from_ip()
    task:set_milter_reply({ add_headers = { ['X-Seen'] = string.format('%s %s %s', from and from[1].addr, ip, task:get_helo()) } })
  end,
})
