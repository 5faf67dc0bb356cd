import CSystemShims
import HostSystem
import Testing

@Suite struct MappingTests {
    private static let page = 4096

    @Test func `two mappings of one memory file show the same bytes`() throws {
        let file = try MemoryFile(name: "test", size: 2 * Self.page)
        let (first, second) = (try file.map(), try file.map())
        unsafe first.address.storeBytes(of: 0x55, toByteOffset: 5000, as: UInt8.self)
        #expect(unsafe second.address.load(fromByteOffset: 5000, as: UInt8.self) == 0x55)
    }

    @Test func `HI-I12: our own memory files can be neither shrunk nor grown`() throws {
        let file = try MemoryFile(name: "test", size: Self.page)
        #expect(shim_set_file_size(file.descriptor.rawValue, 0) < 0)
        #expect(shim_set_file_size(file.descriptor.rawValue, 8192) < 0)
        #expect(shim_memfd_seals(file.descriptor.rawValue) & shim_seal_shrink() != 0)
    }

    @Test func `a file placed in a window is seen there until the window is cleared`() throws {
        let window = try Mapping.anonymous(length: 4 * Self.page)
        let file = try MemoryFile(name: "test", size: Self.page)
        let direct = try file.map()
        unsafe direct.address.storeBytes(of: 7, as: UInt8.self)
        try window.place(file.descriptor, offset: 0, at: 2 * Self.page, length: Self.page)
        #expect(unsafe window.address.load(fromByteOffset: 2 * Self.page, as: UInt8.self) == 7)
        #expect(unsafe window.address.load(fromByteOffset: Self.page, as: UInt8.self) == 0)
        try window.clear(at: 2 * Self.page, length: Self.page)
        #expect(unsafe window.address.load(fromByteOffset: 2 * Self.page, as: UInt8.self) == 0)
        #expect(unsafe direct.address.load(as: UInt8.self) == 7)
    }

    @Test(arguments: [(-4096, 4096), (0, 0), (0, 20480), (16384, 4096), (12288, 8192)])
    func `nothing is placed outside a window`(position: Int, length: Int) throws {
        let window = try Mapping.anonymous(length: 4 * Self.page)
        let file = try MemoryFile(name: "test", size: 8 * Self.page)
        #expect(throws: SystemError.self) {
            try window.place(file.descriptor, offset: 0, at: position, length: length)
        }
        #expect(throws: SystemError.self) { try window.clear(at: position, length: length) }
    }

    @Test func `HI-I11: a file truncated under a guarded mapping turns into zero pages`() throws {
        try checked(shim_sigbus_install(), "install")
        let raw = try checked(unsafe shim_memfd_create("foreign", 0), "create")
        let file = FileDescriptor(owning: raw)
        try checked(shim_set_file_size(raw, 8192), "size")
        let mapping = try Mapping.file(file, offset: 0, length: 8192)
        unsafe mapping.address.storeBytes(of: 9, toByteOffset: 4096, as: UInt8.self)
        let slot = unsafe shim_sigbus_guard(mapping.address, 8192)
        defer { shim_sigbus_unguard(slot) }
        #expect(shim_sigbus_faults(slot) == 0)
        try checked(shim_set_file_size(raw, 0), "truncate")
        #expect(unsafe mapping.address.load(fromByteOffset: 4096, as: UInt8.self) == 0)
        #expect(shim_sigbus_faults(slot) == 1)
        unsafe mapping.address.storeBytes(of: 3, toByteOffset: 0, as: UInt8.self)
        #expect(shim_sigbus_faults(slot) == 1)
    }

    @Test func `HI-I11: a SIGBUS outside every guarded range still ends the process`() async {
        await #expect(processExitsWith: .signal(7)) {
            try checked(shim_sigbus_install(), "install")
            let raw = try checked(unsafe shim_memfd_create("foreign", 0), "create")
            let file = FileDescriptor(owning: raw)
            try checked(shim_set_file_size(raw, 4096), "size")
            let mapping = try Mapping.file(file, offset: 0, length: 4096)
            try checked(shim_set_file_size(raw, 0), "truncate")
            print(unsafe mapping.address.load(as: UInt8.self))
            withExtendedLifetime(file) {}
        }
    }

    @Test func `an aligned range begins at a multiple, and leaves nothing else mapped`() throws {
        for alignment in [1, 4096, 1 << 16, 2 << 20, 1 << 30] {
            let mapping = try Mapping.anonymous(length: 8192, alignment: alignment)
            let address = UInt(bitPattern: unsafe mapping.address)
            #expect(address % UInt(alignment) == 0)
            #expect(mapping.length == 8192)
            unsafe mapping.address.storeBytes(of: 1, toByteOffset: 8191, as: UInt8.self)
        }
        #expect(throws: SystemError.self) {
            try Mapping.anonymous(length: .max, alignment: 2 << 20)
        }
        #expect(throws: SystemError.self) {
            try Mapping.anonymous(length: 0, alignment: 2 << 20)
        }
    }
}
