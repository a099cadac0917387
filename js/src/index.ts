export default () => ({ initialize() {}, render() {} });
