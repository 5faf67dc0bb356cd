/// The part of MSI-X that a kernel plays for the drivers of hardware, played for an emulated function
/// by whoever serves it: drivers connect vectors to eventfds and never touch the table.
///
/// Masking and pending bits stay the function's own; this only writes its registers.
public struct MessageVectors {
    /// Number of vectors, 0 without the capability.
    public let count: Int

    private let endpoint: any PCIEndpoint
    private let control: Int
    private let tableBAR: Int
    private let tableOffset: UInt64

    /// Looks the capability up.
    public init(_ endpoint: any PCIEndpoint) throws(PCIError) {
        self.endpoint = endpoint
        guard let entry = try CapabilityList(endpoint).first(MSIXTable.identifier) else {
            count = 0
            control = 0
            tableBAR = 0
            tableOffset = 0
            return
        }
        control = entry.offset + MSIXTable.controlOffset
        count = Int(endpoint.readConfiguration(control, .word) & 0x7ff) + 1
        let table = endpoint.readConfiguration(entry.offset + 4, .long)
        tableBAR = Int(table & 7)
        tableOffset = UInt64(table & ~7)
    }

    /// A message of the vector goes out from now on, one that is pending at once.
    public func unmask(_ vector: Int) { write(vector, 0) }

    /// A message of the vector stays pending from now on.
    public func mask(_ vector: Int) { write(vector, 1) }

    /// Switches MSI-X on.
    public func enable() {
        guard count > 0 else { return }
        let before = endpoint.readConfiguration(control, .word)
        endpoint.writeConfiguration(control, .word, before | UInt32(MSIXTable.enableBit))
    }

    private func write(_ vector: Int, _ value: UInt32) {
        guard (0..<count).contains(vector) else { return }
        // The table is in memory space, which the driver may not have switched on yet.
        let before = endpoint.readConfiguration(ConfigurationHeader.command, .word)
        let decoding = UInt32(CommandRegister.memorySpace.rawValue)
        if before & decoding == 0 {
            endpoint.writeConfiguration(ConfigurationHeader.command, .word, before | decoding)
        }
        endpoint.writeRegister(
            tableBAR,
            tableOffset + UInt64(vector * MSIXTable.entryLength + 12),
            .long,
            value
        )
        if before & decoding == 0 {
            endpoint.writeConfiguration(ConfigurationHeader.command, .word, before)
        }
    }
}
