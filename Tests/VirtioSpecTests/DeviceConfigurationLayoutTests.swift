import CLinuxVirtio
import Testing
import VirtioSpec

@Suite struct DeviceConfigurationLayoutTests {
    private func offset(_ name: String, of type: DeviceType) -> Int? {
        DeviceConfigurationField.fields(of: type).first { $0.name == name }?.offset
    }

    @Test func `offsets are the kernel's`() {
        #expect(offset("status", of: .net) == MemoryLayout<virtio_net_config>.offset(of: \.status))
        #expect(
            offset("max_virtqueue_pairs", of: .net)
                == MemoryLayout<virtio_net_config>.offset(of: \.max_virtqueue_pairs)
        )
        #expect(offset("mtu", of: .net) == MemoryLayout<virtio_net_config>.offset(of: \.mtu))
        #expect(offset("speed", of: .net) == MemoryLayout<virtio_net_config>.offset(of: \.speed))
        #expect(
            offset("supported_hash_types", of: .net)
                == MemoryLayout<virtio_net_config>.offset(of: \.supported_hash_types)
        )
        #expect(
            offset("seg_max", of: .block) == MemoryLayout<virtio_blk_config>.offset(of: \.seg_max)
        )
        #expect(
            offset("num_queues", of: .block)
                == MemoryLayout<virtio_blk_config>.offset(of: \.num_queues)
        )
        #expect(
            offset("max_write_zeroes_seg", of: .block)
                == MemoryLayout<virtio_blk_config>.offset(of: \.max_write_zeroes_seg)
        )
        #expect(
            offset("max_nr_ports", of: .console)
                == MemoryLayout<virtio_console_config>.offset(of: \.max_nr_ports)
        )
        #expect(
            offset("poison_val", of: .balloon)
                == MemoryLayout<virtio_balloon_config>.offset(of: \.poison_val)
        )
        #expect(
            offset("num_request_queues", of: .fileSystem)
                == MemoryLayout<virtio_fs_config>.offset(of: \.num_request_queues)
        )
    }

    @Test(arguments: [
        ([0, 0], "0"), ([1, 0], "1 (LINK_UP)"), ([3, 0], "3 (LINK_UP, ANNOUNCE)"),
        ([0, 0x80], "32768"), ([], "0"),
    ])
    func `the status of a network device is told by names`(row: ([UInt8], String)) throws {
        let fields = DeviceConfigurationField.fields(of: .net)
        let status = try #require(fields.first { $0.name == "status" })
        #expect(status.text(row.0) == row.1)
    }

    @Test func `fields of a type do not overlap`() {
        for type in [DeviceType.net, .block, .console, .balloon, .scsi, .gpu, .socket, .fileSystem]
        {
            var end = 0
            for field in DeviceConfigurationField.fields(of: type) {
                #expect(field.offset >= end, "\(type) \(field.name)")
                end = field.offset + field.length
            }
            #expect(end > 0)
        }
    }

    @Test func `bytes become text, and no control character gets out`() throws {
        let mac = try #require(DeviceConfigurationField.fields(of: .net).first)
        #expect(mac.text([2, 0, 0xff, 0x0a, 1, 9]) == "02:00:ff:0a:01:09")
        let tag = try #require(DeviceConfigurationField.fields(of: .fileSystem).first)
        #expect(tag.text(Array("a\u{1b}[2Jb\u{0}rest".utf8)) == "a?[2Jb")
        let capacity = try #require(DeviceConfigurationField.fields(of: .block).first)
        #expect(capacity.text([UInt8](repeating: 0xff, count: 8)) == "18446744073709551615")
        #expect(capacity.text([]) == "0")
        #expect(DeviceConfigurationField.fields(of: DeviceType(4)).isEmpty)
    }
}
