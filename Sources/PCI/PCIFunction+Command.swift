extension PCIFunction {
    /// Changes the command register and leaves alone what `change` does not touch. `deviceGone` when
    /// configuration space reads as ones.
    public func changeCommand(
        _ change: (CommandRegister) -> CommandRegister
    ) throws(PCIError) {
        let value = try readConfiguration(ConfigurationHeader.command, .word)
        guard value != 0xffff else { throw .deviceGone }
        let before = CommandRegister(rawValue: UInt16(truncatingIfNeeded: value))
        let after = change(before)
        guard after != before else { return }
        try writeConfiguration(ConfigurationHeader.command, .word, UInt32(after.rawValue))
    }
}
